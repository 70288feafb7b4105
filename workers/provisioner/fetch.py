"""One GET over the house's transport, for probes: the whole body, bounded in size and time."""

from __future__ import annotations

from providers.errors import BadResponse
from providers.ports import Timeouts, Transport


class TransportFetch:
    """Implements targets.models.Fetch. timeout_s: for the whole exchange."""

    def __init__(self, transport: Transport, timeout_s: float) -> None:
        self._transport = transport
        self._timeouts = Timeouts(connect_s=timeout_s, first_byte_s=timeout_s, idle_s=timeout_s, total_s=timeout_s)

    async def __call__(self, url: str, headers: dict[str, str], *, private: bool, most: int) -> tuple[int, bytes]:
        answer = await self._transport.open(url, headers, b"", self._timeouts, private=private, method="GET")
        try:
            body = bytearray()
            while piece := await answer.read():
                body += piece
                if len(body) > most:
                    raise BadResponse(f"the listing of models is larger than {most} bytes")
            return answer.status, bytes(body)
        finally:
            answer.close()
