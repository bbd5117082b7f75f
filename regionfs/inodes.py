"""The inodes of a mount while they come and go: reloads, renewals, fallbacks, and what the kernel forgets.

Whatever a server after this one must know is written down (`persist`) before any of it is seen, here or by the
kernel: if that fails, nothing has changed. Only what the kernel has forgotten may be written down late: the next
server then asks the kernel once more.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from regionfs.index import Index
from regionfs.modes.choose import Choice, Mode
from regionfs.sharing import Sharing
from regionfs.tree import Directory, FileNode, Node, Tree

log = logging.getLogger("regionfs")


class Inodes:
    """The tree, the index that describes it for the next server, and who shares bytes with whom.

    Requests go on meanwhile. Whatever they find in the tree they find in `sharing`, and the other way round, but
    for what the kernel has forgotten.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.index = Index()
        self.sharing = Sharing(())
        self._trouble = ""  # why the index could not be written last; said once
        self.changing = threading.RLock()  # whoever changes the tree or the index has it
        self.persist: Callable[[Index], None] = lambda index: None  # writes an index down, or OSError
        self.on_change: Callable[[], None] = lambda: None  # called when nodes came or went
        self.on_share: Callable[[], None] = lambda: None   # called when the tree has changed
        self.knows: Callable[[int], bool] = lambda ino: False  # whether the kernel still holds an inode; may wait
        self.share()

    def share(self) -> None:
        """Work out anew which files show the same bytes, after the tree has changed."""
        self.sharing = Sharing(self.tree.shown())
        self.on_share()

    def swap(self, tree: Tree, index: Index | None = None) -> None:
        """Another tree takes the place of this one; what it retired is still served. OSError: it does not."""
        with self.changing:
            sharing = Sharing(tree.shown())  # takes its time: no write shall go by the new tree and the old sharing
            self._note(index or self.index)
            self.sharing, self.tree = sharing, tree
            self.on_share()

    def renew(self, node: FileNode) -> None:
        """Part the file's next handles from those that are open now, unless it has lost its name. As swap, OSError."""
        with self.changing:
            if self.tree.files.get(node.spec.path) is not node:
                return
            self._note(self.index.renew(node.spec.path, node.generation))
            new = self.tree.renewed(node, self.index.given)
            self.sharing = Sharing((*self.tree.shown(), new.shown()))  # before anybody can ask about it
            self.tree.renew(new)
            self.on_share()

    def fall_back(self, nodes: Sequence[FileNode], why: str) -> bool:
        """Serve files in userspace from now on. False, and nothing changed, if that cannot be written down."""
        with self.changing:
            try:
                self._note(self.index.fall_back({node.spec.path: node.generation for node in nodes}, why))
            except OSError:
                return False
            for node in nodes:
                node.choice = Choice(Mode.USERSPACE, why)
        return True

    # who shares bytes with whom

    def is_written(self, node: FileNode) -> bool:
        """True when some file of the mount, this one or one of another manifest, may write to a source of it."""
        written = self.sharing.written
        return bool(written) and any(node.sources.facts(key).identity in written for key in node.spec.body.sources)

    def written_past_us(self, node: FileNode) -> bool:
        """True when a passthrough file writes its source: choose keeps such files together, a fallback parts them."""
        return Mode.PASSTHROUGH in self._modes(self.sharing.whole_writers_beside(node.ino))

    def _modes(self, inodes: Iterable[int]) -> set[Mode]:
        nodes = map(self.tree.nodes.get, inodes)  # the kernel may have forgotten some just now
        return {node.choice.mode for node in nodes if isinstance(node, FileNode)}

    def kept_by_us(self, node: FileNode) -> bool:
        """True when a kernel mode would not agree with an old handle of another file, so we move the bytes.

        The manifest's own files are chosen so that they agree; those that handles keep of older ones are not. A
        composed file would miss what is written, a passthrough writer what others have in caches of their own.
        """
        if node.choice.mode is Mode.COMPOSED:
            return self.is_written(node)
        return node.choice.mode is Mode.PASSTHROUGH and node.spec.writable and bool(
            self._modes(self.sharing.beside(node.ino)) - {Mode.PASSTHROUGH})

    # what goes

    def forget(self, inodes: Iterable[int]) -> None:
        """The kernel dropped references: what is retired and held no more is gone for good."""
        retired = self.tree.is_retired
        if gone := [ino for ino in inodes if retired(ino) and not self.knows(ino)]:
            self._drop(gone)

    def sweep(self) -> None:
        """Let go of what was retired and the kernel does not hold."""
        self.forget([node.ino for node in self.tree.retired()])

    def told(self) -> None:
        """The kernel was told of all names that the last swap changed."""
        with self.changing, suppress(OSError):  # it can be told again
            self._note(replace(self.index, told=True))

    def _drop(self, inodes: Iterable[int]) -> None:
        with self.changing:
            gone = [self.tree.nodes[ino] for ino in set(inodes) if self.tree.is_retired(ino)]
            if not gone:
                return
            with suppress(OSError):
                self._note(self.index.forget(files_of(gone), directories_of(gone)))
            left = {node.ino for node in gone}
            self.sharing = Sharing(shown for shown in self.tree.shown() if shown.ino not in left)
            for ino in left:
                self.tree.drop(ino)
            self.on_share()
            self.on_change()

    def _note(self, index: Index) -> None:
        try:
            self.persist(index)
        except OSError as error:
            if not self._trouble:
                log.error("the state of the mount cannot be written down: %s", error)
            self._trouble = str(error)
            raise OSError(errno.EIO, f"the state of the mount cannot be written down: {error}") from error
        self.index, self._trouble = index, ""


def files_of(nodes: Iterable[Node]) -> list[tuple[str, int]]:
    """(path, generation) of the files among them."""
    return [(node.spec.path, node.generation) for node in nodes if isinstance(node, FileNode)]


def directories_of(nodes: Iterable[Node]) -> list[str]:
    """Paths of the directories among them."""
    return [node.path for node in nodes if isinstance(node, Directory)]
