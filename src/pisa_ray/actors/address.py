"""The address of a Ray that a run is given, and whether a Ray answers there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from ray._private import services

from pisa_ray.errors import ConfigError

#: Seconds that a machine may take to answer.
PROBE = 5.0

#: How a client of HTTP/2, which Ray's gRPC speaks, begins: a fixed text, and a frame of settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
#: Length and type of the frame that a server begins with; the type is the fourth byte.
_HEAD, _SETTINGS = 9, 4


@dataclass(frozen=True)
class Address:
    """Where Ray is.

    Attributes:
        text: host:port, "auto" (the Ray that runs on this machine) or "local" (a new one).
        source: Where it was given: an argument or an environment variable.
    """

    text: str
    source: str

    @classmethod
    def of(cls, given: str | None, environ: Mapping[str, str] = os.environ) -> Address:
        """Return the address that is given, else RAY_ADDRESS, else a new Ray.

        Raises:
            ConfigError: What is given is no address.
        """
        if given is not None and given.strip():
            address = cls(given.strip(), "ray_address")
        else:
            address = cls(environ.get("RAY_ADDRESS", "").strip() or "local", "RAY_ADDRESS")
        if address.text not in ("local", "auto"):
            address.host_and_port()
        return address

    def host_and_port(self) -> tuple[str, int]:
        """Return host and port.

        Raises:
            ConfigError: The text has none.
        """
        if "://" in self.text:
            raise ConfigError(
                f"{self.source} is {self.text!r}, but a run cannot use Ray Client: give host:port on a machine of the "
                "cluster, or start the run there with `ray job submit`."
            )
        host, _, port = self.text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or not port.isascii() or not 0 < int(port[:6]) < 65536 or "\0" in host:
            raise ConfigError(
                f"{self.source} is {self.text!r}, but an address of Ray is host:port, such as 10.0.0.1:6379, or auto "
                "(the Ray of this machine), or local (a new one)."
            )
        return host, int(port)

    def probe(self) -> None:
        """See whether a Ray answers.

        Raises:
            ConfigError: None answers within seconds.
        """
        if self.text == "local":
            return
        if self.text == "auto":
            found = services.canonicalize_bootstrap_address("auto")
            if found is None:
                raise ConfigError(
                    f"{self.source} is 'auto', but no Ray runs on this machine: start one with `ray start --head`, or "
                    "give local, for a new one."
                )
            host, port = Address(found, self.source).host_and_port()
        else:
            host, port = self.host_and_port()
        try:
            _greet(host, port)
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"{self.source} is {self.text!r}, but no Ray can be reached there ({error}): start one, correct the "
                "address, or leave it out for a new Ray on this machine."
            ) from error


def _greet(host: str, port: int) -> None:
    """Begin to speak with a gRPC server.

    Raises:
        OSError: No gRPC server answers.
    """
    with socket.create_connection((host, port), timeout=PROBE) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        connection.sendall(_GREETING)
        answer = b""
        while len(answer) < _HEAD and (part := connection.recv(_HEAD - len(answer))):
            answer += part
    if len(answer) < _HEAD or answer[3] != _SETTINGS:
        raise OSError("what answers is no Ray")
