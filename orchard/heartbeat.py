"""Whether the other processes of a run are still there: whoever waits for a dead one waits for ever.

Every process is connected with the first one, and says ``left`` there when its work is done, or ``lost …``
when another process is. A process that is killed ends its connections at once. Whether its machine and
network are up, the kernels ask each other (TCP keepalive): a process that is stopped, or busy with one long
call, is not taken for a lost one.
"""

import contextlib
import ipaddress
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from orchard.errors import UserError, one_line

if TYPE_CHECKING:
    from torch.distributed import Store

IDLE, EVERY, PROBES = 10, 5, 4
"""Seconds after which the other machine's kernel is asked, those between two questions, and how many may stay
without an answer."""
OPTIONS = {"TCP_KEEPIDLE": IDLE, "TCP_KEEPALIVE": IDLE, "TCP_KEEPINTVL": EVERY, "TCP_KEEPCNT": PROBES}
"""Those of a connection that say so, by the names that Linux or macOS has for them."""
GRACE = 5.0
"""Seconds that a process has for an end of its own, once another one is lost: often they fail alike."""
ARRIVAL = timedelta(minutes=5)
"""How long the first processes of a run wait for the last one to start."""
KEY = "orchard/heartbeat"
ANEW = (
    "start all processes again by the same command, finetune with --resume latest: what was finished is kept"
)


CODE = os.EX_TEMPFAIL
"""Of a process that ends because another one is gone."""


@dataclass(kw_only=True, eq=False)
class Peer:
    """The other end of a connection."""

    rank: int
    host: str
    connection: socket.socket
    received: bytes = b""
    """What has come of a line that is not complete."""

    def __post_init__(self) -> None:
        self.connection.settimeout(GRACE)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in OPTIONS.keys() & vars(socket).keys():
            self.connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), OPTIONS[name])

    def say(self, word: str) -> None:
        """Send a line; raise `OSError` where the connection has ended."""
        self.connection.sendall(f"{word}\n".encode())

    def lines(self) -> list[str] | None:
        """The lines that have come, None where the connection was ended; raises `OSError` where it broke."""
        try:
            data = self.connection.recv(4096)
        except ConnectionResetError:
            data = b""
        *whole, self.received = (self.received + data).split(b"\n")
        return [line.decode() for line in whole] if data or whole else None


@dataclass(kw_only=True, eq=False)
class Heartbeat:
    """One process's part: a thread that talks with its peers."""

    peers: list[Peer]
    size: int
    on_lost: Callable[[str], None]
    """Called in the thread with what happened, unless the process ends by itself within `GRACE`."""
    store: "Store | None" = None
    """Where they met: as long as the first process holds it, torch's own is the same server."""
    lost: threading.Event = field(default_factory=threading.Event)
    why: str = ""
    left: bool = False

    def start(self) -> None:
        """Watch, until this process or all others have left."""
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def leave(self) -> None:
        """Tell the others that this process is done."""
        self.left = True
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.say("left")

    def _watch(self) -> None:
        while self.peers and not self.lost.is_set():
            ready = wait([peer.connection for peer in self.peers])
            if self.left:
                return
            for peer in [one for one in self.peers if one.connection in ready]:
                self._hear(peer)
        if self.lost.is_set():
            time.sleep(GRACE)
            if not self.left:
                self.on_lost(self.why)

    def _hear(self, peer: Peer) -> None:
        name = f"process {peer.rank} of {self.size}, on {peer.host},"
        try:
            lines = peer.lines()
        except OSError as error:
            self._lose(
                f"{name} has not answered for {IDLE + EVERY * PROBES} s: its machine or network is down "
                f"({one_line(error)}); {ANEW}"
            )
            return
        if lines is None:
            self._lose(f"{name} ended before the run was done: killed, or by what it said there; {ANEW}")
        for line in lines or ():
            if line == "left":
                self.peers.remove(peer)
            else:
                self._lose(line.removeprefix("lost "))

    def _lose(self, why: str) -> None:
        self.why = self.why or why
        self.lost.set()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.say(f"lost {self.why}")


on_lost: Callable[[str], None] | None = None
"""What a command does when another process is lost; None in programs, which are not ended by us."""
_own: Heartbeat | None = None


def start() -> None:
    """Meet the other processes that a launcher has started, and watch over them from now on.

    Tells gloo which network leads to them: it would take the one that this machine's name stands for,
    which often is the machine itself.

    Raises:
        UserError: they did not all come within `ARRIVAL`, or cannot be reached.
    """
    global _own
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if _own or not on_lost or not all(os.environ.get(name) for name in names):
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size == 1:
        return
    from torch.distributed.rendezvous import rendezvous

    try:
        store = next(rendezvous("env://", timeout=ARRIVAL))[0]
        peers = [_call(rank, store)] if rank else _wait_for_others(size, store)
    except (OSError, RuntimeError) as error:  # of sockets, of torch's store
        raise UserError(
            f"process {rank} of {size}: not all of them met at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} within {ARRIVAL.seconds // 60} minutes ({one_line(error)}); start "
            "one on every machine, with one address, between which no firewall stands"
        ) from None
    network = next(filter(None, map(_interface, peers)), "")
    if network:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", network)
    _own = Heartbeat(peers=peers, size=size, on_lost=on_lost, store=store)
    _own.start()


def leave() -> None:
    """Tell the others, if there are any, that this process is done."""
    if _own:
        _own.leave()


def lost() -> str:
    """What happened to another process; empty while all is well."""
    return _own.why if _own else ""


def explains(error: Exception) -> bool:
    """Whether the error is of a collective that another process's end has broken off."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    of_collective = "DistError" in kinds or "gloo" in str(error)
    return bool(_own and of_collective and _own.lost.wait(GRACE))


def _wait_for_others(size: int, store: "Store") -> list[Peer]:
    with _listener() as listener:
        listener.settimeout(ARRIVAL.total_seconds())
        token = secrets.token_hex(8)
        store.set(KEY, json.dumps([listener.getsockname()[1], token, socket.gethostname()]))
        peers: list[Peer] = []
        while len(peers) < size - 1:
            peers += _answer(listener.accept()[0], token)
    return peers


def _listener() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _call(rank: int, store: "Store") -> Peer:
    """The connection with the first process."""
    port, token, host = json.loads(store.get(KEY))
    address = (os.environ["MASTER_ADDR"], port)
    connection = socket.create_connection(address, timeout=ARRIVAL.total_seconds())
    peer = Peer(rank=0, host=host, connection=connection)
    peer.say(json.dumps([token, rank, socket.gethostname()]))
    return peer


def _answer(connection: socket.socket, token: str) -> list[Peer]:
    """The process that calls; nobody where a stranger does."""
    connection.settimeout(GRACE)
    try:
        # Without a buffer, which would take from what follows.
        theirs, rank, host = json.loads(connection.makefile("rb", buffering=0).readline(1000))
    except (OSError, ValueError, TypeError):
        theirs = rank = host = None
    if theirs != token:
        connection.close()
        return []
    return [Peer(rank=rank, host=host, connection=connection)]


def _interface(peer: Peer) -> str:
    """The name of the network interface that leads to another machine; empty for one on this machine."""
    import psutil

    own = ipaddress.ip_address(peer.connection.getsockname()[0].partition("%")[0])
    own = getattr(own, "ipv4_mapped", None) or own
    found = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(one.address.partition("%")[0] == str(own) for one in addresses)
    ]
    return "" if own.is_loopback or not found else found[0]
