"""Close the pipe ``CAMPAIGN_MARK`` as soon as the process runs code of fastlstm.

At that time its package has been imported, and the import of its command line has begun. Before, only the interpreter
would handle a signal, for which fastlstm guarantees nothing.
"""

import os
import sys

_pipe = [int(os.environ["CAMPAIGN_MARK"])]


def _mark(event, arguments):
    if event == "import" and "fastlstm.cli" in sys.modules and _pipe:
        os.close(_pipe.pop())


sys.addaudithook(_mark)
