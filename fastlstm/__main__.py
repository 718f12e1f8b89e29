"""The program ``fastlstm``: ``python -m fastlstm`` and the console script."""

from fastlstm import signals

signals.install()  # first: a signal during the imports below is one line already

from fastlstm.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
