"""The program ``fastlstm``: ``python -m fastlstm`` and the console script."""

from fastlstm import signals

signals.install()  # first: signals during the imports below are handled too

from fastlstm.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
