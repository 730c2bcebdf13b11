"""Paths that a user names: whether a system can have them, and whether they can be written, before any work is done."""

import errno
import os
from pathlib import Path

from hyperrecon_jax.runtime.errors import InputError

LONGEST_NAME = 255  # bytes, on the file systems of all systems of today


def expand(path: str | os.PathLike[str], *, argument: str) -> Path:
    """Return a path with a home folder in the place of `~` or `~USER`. It need not exist.

    Args:
        path: the path.
        argument: its name in the message of an error, such as "--out".

    Raises:
        InputError: if nothing can lie there: the path is empty, names an unknown user, is too long, goes round in a loop of
            links or through a folder that may not be entered, or has characters that no name has.
    """
    text = os.fspath(path)
    reason = explain_characters(text) if text.strip() else "it is empty"
    if reason is None and any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(text).parts):
        reason = os.strerror(errno.ENAMETOOLONG)
    if reason is None:
        try:
            expanded = Path(text).expanduser()
            expanded.stat()
        except RuntimeError:
            reason = "there is no user of that name"
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):  # what is expected of a path that is to be made
                return expanded
            reason = error.strerror
        else:
            return expanded
    raise InputError(
        f"{argument} {text if text.strip() and text.isprintable() else repr(text)} cannot be a path: {reason}."
    )


def check_folder(folder: Path, *, argument: str, advice: str = "") -> None:
    """Raise `InputError` unless a folder can be made or, if it exists, files can be made in it. Writes nothing.

    Args:
        folder: the folder.
        argument: its name in the message, such as "--out".
        advice: ends the message: what the user can do.
    """
    if reason := explain_unwritable(folder):
        raise InputError(f"{argument} {folder} cannot be written: {reason}{advice and f'; {advice}'}.")


def check_file(file: Path, *, argument: str) -> None:
    """Raise `InputError` unless a file can be made or replaced, in a folder that exists or can be made. Writes nothing."""
    if file.exists() and not file.is_file():
        kind = "a folder" if file.is_dir() else "no file that can be replaced"
        raise InputError(f"{argument} {file} cannot be written: it is {kind}.")
    check_folder(file.parent, argument=argument)


def explain_unwritable(folder: Path) -> str | None:
    """Return why no files can be made in a folder that exists or is to be made; None if they can."""
    try:
        existing = nearest_existing(folder)
    except OSError as error:
        return error.strerror
    if not existing.is_dir():
        return f"{existing} is not a folder"
    # /proc lets root pass this test, and then makes no folder
    if not os.access(existing, os.W_OK | os.X_OK) or existing.is_relative_to("/proc"):
        return f"{existing} may not be written"
    return None


def nearest_existing(folder: Path) -> Path:
    """Return the folder itself, or the nearest of its parents that exists, as an absolute path.

    Raises:
        OSError: if no folder can have this path. A link that leads nowhere counts as one, because nothing can replace it.
    """
    absolute = folder.absolute()
    for path in (absolute, *absolute.parents):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise FileNotFoundError(errno.ENOENT, f"the link {path} leads nowhere") from None
            continue
        return path
    return Path(absolute.anchor)


def printable(text: str) -> str:
    """Return a text with an escape in the place of each character that a terminal cannot show, or obeys.

    Names of files may have them: control characters, and bytes that are not UTF-8.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def explain_characters(text: str) -> str | None:
    """Return why a text cannot be the name of something, by its characters; None if it can."""
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return "it must be UTF-8"
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "it has a control character"
    return None
