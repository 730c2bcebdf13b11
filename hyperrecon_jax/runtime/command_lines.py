"""The two ways to start a command: `hyperrecon train` after an installation, `python -m bin.train` in a checkout.

Help texts and messages are written in the first form. `adapt` turns them into the form that works where the user is.
"""

import re
import sys
from pathlib import Path


def adapt(text: str) -> str:
    """Return a text with its command lines in the form that the user can type.

    In a checkout `hyperrecon train --config quickstart` becomes `python -m bin.train --config configs/quickstart.py`.
    """
    if not uses_checkout():
        return text
    text = re.sub(r"\bhyperrecon ([a-z_]+)(?=[ ]+--|[ ]*$)", r"python -m bin.\1", text, flags=re.MULTILINE)
    text = re.sub(r"--config ([a-z]\w*)(?![\w./\\])", r"--config configs/\1.py", text)
    return re.sub(r"--plan ([a-z]\w*)(?![\w./\\])", r"--plan configs/plans/\1.py", text)


def uses_checkout() -> bool:
    """Return whether this process was started by `python -m bin.NAME` or, if by no command, in the root of a checkout."""
    script = Path(sys.argv[0])
    if script.stem == "hyperrecon":
        return False
    return (script.parent.name == "bin" and script.suffix == ".py") or Path("bin", "train.py").is_file()
