"""The kernel that runs a submission: an ordinary one, that first gives up what a submission must not have.

On Linux it cannot read or change files outside its own folder (but the installed packages, to read), open
connections, start or signal processes, or use more than its share of time and memory. The limits are the
operating system's: nothing that runs later can take them back. The course's answers are no secret, but what
is right is not decided here: in the place of `check` stands what only hands over what it was given.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_utils import exercises
from course_utils.exercises.asking import Function, as_number, is_untouched
from course_utils.exercises.questions import find
from course_utils.exercises.running import Unreadable

MIME = "application/vnd.course.answer+json"
SECONDS, MEMORY, FILE = 150, 4 << 30, 64 << 20  # of processor time, bytes, and bytes in a file

# Landlock, from Linux 5.13: numbers of its calls, what it can forbid of files, by version, and of the rest.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_RUN, _WRITE, _READ, _LIST = 1, 2, 4, 8
_RIGHTS = (0, 13, 14, 15, 15, 16)  # how many there are; later versions have as many
_TCP, _SIGNALS = (4, 0b11), (6, 0b11)  # and from which version on; with signals go abstract sockets

# Seccomp: a processor's name there, and its numbers of clone, of the calls that fork, and of those that chmod
# and chown, for Landlock leaves these to whoever owns a file.
_PROCESSORS = {
    "x86_64": (0xC000003E, 56, (57, 58), (90, 91, 92, 93, 94, 260, 268, 452)),
    "aarch64": (0xC00000B7, 220, (), (52, 53, 54, 55, 452)),
}
_CLONE3, _OTHER_PROCESSOR, _THREAD = 435, 0x40000000, 0x10000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x50000
_NO_NEW_PRIVILEGES, _FILTER = 38, 22


def hand_over(number: str, answer: Any) -> None:
    """Show an answer, in the place of `check`, as numbers and text, or why it cannot be."""
    if is_untouched(answer):
        return _show({"untouched": True})
    try:
        _show({"answer": _plain(number, answer)})
    except Unreadable as reason:
        _show({"unreadable": str(reason)})


def _show(handed: Mapping[str, Any]) -> None:
    from IPython.display import display

    display({MIME: handed}, raw=True)


def _plain(number: str, answer: Any) -> Any:
    """Return an answer as JSON can hold it; of a function what is measured on it."""
    question = find(number)
    if isinstance(question, Function) and callable(answer):
        return question.measured(answer)
    if isinstance(answer, Mapping):
        return {str(name): as_number(value) for name, value in answer.items()}
    return answer if isinstance(answer, str) else as_number(answer)


def _checked(result: int) -> int:
    """Return what a system call returned. Raises: OSError if it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the version of Landlock, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc().syscall(ctypes.c_long(_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def not_held() -> list[str]:
    """Return what this machine does not keep submissions from."""
    there = {
        "reading and changing your files": version() > 0,
        "opening connections": version() >= _TCP[0],
        "signalling your processes": version() >= _SIGNALS[0],
        "starting processes": sys.platform == "linux" and platform.machine() in _PROCESSORS,
    }
    return [what for what, held in there.items() if not held]


def _ration() -> None:
    """Limit time and memory, and the size of a file."""
    import resource

    limits = {"RLIMIT_CPU": SECONDS, "RLIMIT_DATA": MEMORY, "RLIMIT_FSIZE": FILE, "RLIMIT_CORE": 0}
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))


def _be_nobody_special() -> None:
    """Give up what root may do beyond owning files, and what other programs would give back."""
    _checked(_libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc().capset(header, rights))


def _close_off(folder: Path) -> None:
    """Leave of the files the folder, to do anything in, and programs and packages, to read."""
    known = version()
    everything = (1 << _RIGHTS[min(known, len(_RIGHTS) - 1)]) - 1
    others = [bits if known >= since else 0 for since, bits in (_TCP, _SIGNALS)]
    size = 8 if known < _TCP[0] else 16 if known < _SIGNALS[0] else 24
    forbidden = (ctypes.c_uint64 * 3)(everything, *others)
    call = _libc().syscall
    rules = _checked(call(ctypes.c_long(_CREATE), forbidden, ctypes.c_size_t(size), ctypes.c_uint(0)))
    programs = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", sys.prefix, sys.base_prefix)
    for place in {*programs, str(Path(__file__).parents[1])}:
        _allow(rules, place, _RUN | _READ | _LIST)
    _allow(rules, "/dev/null", _READ | _WRITE)
    _allow(rules, str(folder), everything)
    _checked(call(ctypes.c_long(_RESTRICT), rules, ctypes.c_uint(0)))
    os.close(rules)


def _allow(rules: int, place: str, rights: int) -> None:
    """Add a rule for a place and all below it, if it is there."""
    if os.path.exists(place):
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
        rule = rights.to_bytes(8, sys.byteorder) + opened.to_bytes(4, sys.byteorder)
        _checked(_libc().syscall(ctypes.c_long(_ADD), rules, 1, rule, ctypes.c_uint(0)))
        os.close(opened)


def _stay_alone() -> None:
    """Let fail what would start a process; what changes whose a file is and who may use it does nothing."""
    name, clone, forks, changes = _PROCESSORS[platform.machine()]
    refuse, nothing = ((_RETURN, 0, 0, _FAIL | error) for error in (errno.EPERM, 0))
    steps = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, name), refuse, (_LOAD, 0, 0, 0)]
    steps += [(_IF_AT_LEAST, 0, 1, _OTHER_PROCESSOR), refuse]
    for number in (*forks, *changes):
        steps += [(_IF_EQUAL, 0, 1, number), refuse if number in forks else nothing]
    steps += [(_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)]  # then clone is called
    steps += [(_IF_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16), (_IF_ANY, 1, 0, _THREAD), refuse]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    _checked(_libc().prctl(_FILTER, 2, struct.pack("HP", len(steps), ctypes.addressof(code)), 0, 0))


def main() -> None:
    """Give everything up, then be a kernel. Raises: RuntimeError if a thread runs, for it would keep all."""
    from ipykernel.kernelapp import IPKernelApp

    exercises.check = exercises.checking.check = hand_over
    _ration()
    if sys.platform == "linux":
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            raise RuntimeError(f"one thread is expected, before anything of a submission; got {threads}")
        _be_nobody_special()
        if version():
            _close_off(Path.cwd())
        if platform.machine() in _PROCESSORS:
            _stay_alone()
    IPKernelApp.launch_instance()


if __name__ == "__main__":
    main()
