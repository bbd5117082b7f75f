"""`python swap.py ONE OTHER`: exchange two names until killed; a line on stdout once it has begun."""

import ctypes
import os
import sys

AT_FDCWD, EXCHANGE = -100, 2  # renameat2(2)
libc = ctypes.CDLL(None, use_errno=True)
one, other = map(os.fsencode, sys.argv[1:])

if libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, EXCHANGE):
    raise OSError(ctypes.get_errno(), "renameat2")
print("begun", flush=True)
while True:
    libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, EXCHANGE)
