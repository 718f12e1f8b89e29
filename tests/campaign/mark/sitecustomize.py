"""Tell, through the pipe ``CAMPAIGN_MARK``, that the process runs code of fastlstm: its package has been imported, and
the module of its command line begins to be.

Before that, a signal meets the interpreter alone, of which fastlstm promises nothing.
"""

import os
import sys

_pipe = [int(os.environ["CAMPAIGN_MARK"])]


def _mark(event, arguments):
    if event == "import" and "fastlstm.cli" in sys.modules and _pipe:
        os.close(_pipe.pop())


sys.addaudithook(_mark)
