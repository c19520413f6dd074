"""Identity of a process: user, group, title and pid file."""

import atexit
import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..config.config import Config
from ..logs import setup as log
from ..net import listen

T = TypeVar("T")


def check(config: Config) -> None:
    """Check user, group and name. Raises OptionError."""
    _owner(config)
    if config.name is not None and not importlib.util.find_spec("setproctitle"):
        option = config.spelling("name").given(config.name)
        text = f"{option} has no effect without setproctitle: pip install setproctitle"
        log.report_warning(text, config.log_format)


def set_title(config: Config, role: str) -> None:
    """Set the title of this process, which `ps` shows, if the option `name` is set."""
    if config.name is not None:
        with contextlib.suppress(ImportError):
            from setproctitle import setproctitle

            setproctitle(f"tinyasgi: {role} [{config.name}]")


# User and group.


def change_user(config: Config) -> None:
    """Change to the user and the group of the options. The process can't change back."""
    user, group = _owner(config)
    if group is None:
        return
    if user is None:
        os.setgroups([group])
    else:
        import pwd

        os.initgroups(pwd.getpwuid(user).pw_name, group)
    os.setgid(group)
    if user is not None:
        os.setuid(user)


def give_log_files(config: Config) -> None:
    """Give the log files to the user of the workers. Create files that log rotation has moved.

    Raises OptionError.
    """
    user, group = _owner(config)
    if group is None:
        return
    for option in ("access_log_file", "error_log_file"):
        with log.log_path(config, option) as path:
            if path is not None and (not os.path.exists(path) or os.path.isfile(path)):
                with open(path, "ab") as file:
                    os.fchown(file.fileno(), -1 if user is None else user, group)


def _owner(config: Config) -> tuple[int | None, int | None]:
    """Return the numbers of the options `user` and `group`; None for an option that is not set.

    Without `group`, return the group of the user. Raises OptionError if the user or the group does
    not exist, or if this process can't change to it.
    """
    user = group = None
    if config.user is not None:
        user, group = _look_up(config, "user", _user)
    if config.group is not None:
        group = _look_up(config, "group", listen.group_id)
    return user, group


def _look_up(config: Config, option: str, find: Callable[[str], T]) -> T:
    name = getattr(config, option)
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise config.error(option, name, "needs root; leave it out to keep the user and the group")
    try:
        return find(name)
    except OSError as error:
        raise config.error(option, name, f"can't be used: {error}") from None


def _user(name: str) -> tuple[int, int]:
    import pwd  # not on Windows

    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise OSError(f"user {name!r} does not exist") from None
    return found.pw_uid, found.pw_gid


# The pid file.


@contextlib.contextmanager
def pid_file(config: Config) -> Iterator[None]:
    """Write the process id to the file of the option `pid`; remove the file at the end.

    Raises OptionError if the file can't be written, or if it names another process that runs.
    """
    if config.pid is None:
        yield
        return
    path, own = config.pid, str(os.getpid())

    def remove() -> None:
        with contextlib.suppress(OSError):
            if _read(path) == own:
                os.unlink(path)

    other = _read(path)
    if other.isdecimal() and other != own and is_running(int(other)):
        raise config.error("pid", path, f"names process {other}, which is running")
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(own + "\n")
    except OSError as error:
        raise config.error("pid", path, f"can't be written: {error.strerror}") from None
    atexit.register(remove)  # the process may exit without returning here
    try:
        yield
    finally:
        remove()
        atexit.unregister(remove)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(32).strip()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Return whether a process with this id runs. It need not be a child of this process."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"  # a zombie has exited
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        pass
    return True
