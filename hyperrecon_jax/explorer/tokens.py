"""The token without which the explorer's server answers nobody (`access.py`), and the files that hold it."""

import contextlib
import html
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit


def make_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(24)


def load_token() -> str:
    """The token of this user, in a file that nobody else may read; the first call makes it.

    It stays, so that a page goes on after a restart of the server. Who deletes the file gets another one. If no file can be
    kept, each call makes a token.
    """
    file = _state_folder() / "explorer_token"
    with contextlib.suppress(OSError):
        facts = file.stat()
        if facts.st_uid == os.getuid() and not facts.st_mode & 0o077 and (token := file.read_text().strip()):
            return token
    token = make_token()
    with contextlib.suppress(OSError):
        _write_private(file, token)
    return token


def write_opener(address: str) -> Path | None:
    """A page that leads to an address, in a file that nobody else may read; None if no file can be written.

    A browser is told to open the file: other users see what a program is told, and the address has the token.
    """
    file = _state_folder() / f"explorer_{urlsplit(address).port}.html"
    try:
        _write_private(file, f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={html.escape(address)}">\n')
    except OSError:
        return None
    return file


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hyperrecon_jax"


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
