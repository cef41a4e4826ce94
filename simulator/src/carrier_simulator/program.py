"""What a call does: it follows one document after the other, verb by verb; an order interrupts whatever runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urljoin

from carrier_simulator import verbs
from carrier_simulator.dialling import NumberDialling
from carrier_simulator.faults import Fault, Refused
from carrier_simulator.line import Line
from carrier_simulator.reading import is_web_url
from carrier_simulator.sip_dialling import SCHEMES, Dialled, SipDialling
from carrier_simulator.stream import MediaStream
from carrier_simulator.terms import CallStatus, Document
from carrier_simulator.web import Form


class Over(Exception):
    """The call is to end now, with this status."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        self.status = status


class Program:
    def __init__(self, line: Line) -> None:
        self._line = line
        self._office = line.office
        self._beside: list[asyncio.Task[None]] = []
        """Streams that last while the document goes on."""
        self._hung_up = False
        """The caller did, or the REST API for them; not the simulator at its own end."""

    async def run(self, document: Document) -> None:
        """Follow documents until there is none left."""
        following: Document | None = document
        while following is not None:
            program = asyncio.create_task(self._follow(following))
            order = asyncio.create_task(self._line.orders.get())
            try:
                await asyncio.wait({program, order}, return_when=asyncio.FIRST_COMPLETED)
                self._hung_up = order.done() and isinstance(order.result(), CallStatus)
            finally:
                program.cancel()
                order.cancel()
                outcomes = await asyncio.gather(program, order, return_exceptions=True)
            if isinstance(outcomes[1], CallStatus):
                raise Over(outcomes[1])
            if isinstance(outcomes[1], Document):
                following = outcomes[1]
            elif isinstance(outcomes[0], BaseException):
                raise outcomes[0]
            else:
                following = outcomes[0]

    def stream_beside(self, stream: verbs.Stream) -> None:
        """Stream as long as the call lasts, while the document goes on."""
        self._beside.append(asyncio.create_task(self._stream(stream), name=f"stream of {self._line.sid}"))

    async def close(self) -> None:
        """The call is over, and so are the streams beside its document."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)

    async def _follow(self, document: Document) -> Document | None:
        """Follow one document; return the next one, or None when this one is through."""
        line = self._line
        for verb in await self._read(document):
            if isinstance(verb, verbs.Reject):
                if line.answered.has_come():
                    raise Over(CallStatus.COMPLETED)
                raise Over(CallStatus.BUSY if verb.reason == "busy" else CallStatus.FAILED)
            if not line.answered.has_come():
                line.set_status(CallStatus.IN_PROGRESS)
            following = await self._perform(verb, document)
            if following is not None:
                return _resolved(following, document)
        return None

    async def _read(self, document: Document) -> Sequence[verbs.Verb]:
        dialect = self._office.dialect
        if document.inline:
            found = dialect.parse(document.inline.encode(), "text/xml")
        else:
            await self._line.jitter("document")
            form = [*self._line.form(), *document.extra]
            page = await self._office.web.fetch(document.url, document.method, form)
            found = dialect.parse(page.body, page.content_type)
        self._line.fetched.come()
        return found

    async def _perform(self, verb: verbs.Verb, document: Document) -> Document | None:
        match verb:
            case verbs.Say(text):
                self._line.spoken.append(text)
                await asyncio.sleep(self._office.options.say_seconds)
            case verbs.Pause(seconds):
                await asyncio.sleep(seconds)
            case verbs.Redirect(url, method):
                return Document(url, method)
            case verbs.Hangup():
                raise Over(CallStatus.COMPLETED)
            case verbs.Connect(stream, action, method):
                await self._stream(stream)
                if action:
                    fields = tuple(self._office.dialect.streamed(self._line.stream.sid))
                    return Document(action, method, extra=fields)
            case verbs.Start(stream):
                self.stream_beside(stream)
            case verbs.Gather():
                return await self._gather(verb, document)
            case verbs.Dial():
                return await self._dial(verb)
            case verbs.Play() | verbs.Reject():
                pass
        return None

    async def _gather(self, gather: verbs.Gather, document: Document) -> Document | None:
        keypad = self._line.keypad
        keypad.listen(gather)
        try:
            prompts = asyncio.create_task(self._prompt(gather, document))
            try:
                pressed = await keypad.collect(gather, prompts, self._office.options.gather_seconds)
            finally:
                prompts.cancel()
                await asyncio.gather(prompts, return_exceptions=True)
        finally:
            keypad.stop_listening()
        if not pressed and not gather.asks_when_empty:
            return None
        fields = tuple(self._office.dialect.gathered(pressed))
        return Document(gather.action or document.url, gather.method, extra=fields)

    async def _prompt(self, gather: verbs.Gather, document: Document) -> None:
        for verb in gather.prompts:
            await self._perform(verb, document)

    async def _dial(self, dial: verbs.Dial) -> Document | None:
        """All targets ring at once; the first decides."""
        line, target = self._line, dial.targets[0]
        line.dialled.extend(dial.targets)
        if target.address.startswith(SCHEMES):
            return await self._dial_sip(dial, target)
        dialling = NumberDialling(line, dial, target)
        try:
            fields = await dialling.run()
        except asyncio.CancelledError:
            await self._tell_of_dial(dial, dialling.give_up())
            raise
        return Document(dial.action, dial.method, extra=tuple(fields)) if dial.action else None

    async def _tell_of_dial(self, dial: verbs.Dial, fields: Form) -> None:
        """The carrier reports the outcome of the dial, although the caller has hung up."""
        if not dial.action or not self._hung_up:
            return
        form = dict(self._line.form()) | self._office.dialect.hung_up()
        try:
            await self._office.web.fetch(dial.action, dial.method, [*form.items(), *fields])
        except Refused as refused:
            self._line.errors.append(refused.error)

    async def _dial_sip(self, dial: verbs.Dial, target: verbs.Target) -> Document | None:
        dialling = SipDialling(self._line, dial, target)
        try:
            dialled = await dialling.run()
        except asyncio.CancelledError:
            await self._tell_of_dial(dial, self._dialled(await dialling.give_up()))
            raise
        return Document(dial.action, dial.method, extra=tuple(self._dialled(dialled))) if dial.action else None

    def _dialled(self, dialled: Dialled) -> Form:
        return [
            *self._office.dialect.dialled(dialled.leg_id, dialled.status, dialled.seconds),
            *dialled.fields,
        ]

    async def _stream(self, wanted: verbs.Stream) -> None:
        """Stream until that is over: some carriers open a lost socket again by themselves, a few times."""
        stream = await self._stream_once(wanted, "")
        for _ in range(wanted.reconnects):
            if not stream.lost:
                return
            await asyncio.sleep(self._office.options.reconnect_seconds)
            stream = await self._stream_once(wanted, stream.sid)

    async def _stream_once(self, wanted: verbs.Stream, stream_id: str) -> MediaStream:
        """One connection. `stream_id`: of the stream that is opened again, which keeps it; empty for a new one."""
        line = self._line
        wire = self._office.dialect.wire(line, wanted)
        wire.stream_id = stream_id or wire.stream_id
        stream = MediaStream(self._office.web, line.mouth, wire, wanted.url, line.errors)
        rate = wire.speaks.rate
        stream.frame_samples = [samples * rate // 8000 for samples in self._office.options.frame_samples]
        if not line.stream_started.has_come():
            stream.started, stream.first_sound = line.stream_started, line.first_sound
        line.streams.append(stream)
        teller = asyncio.create_task(self._tell(stream, wanted)) if wanted.callback else None
        try:
            await stream.run()
        except Refused as refused:
            # The carrier notes the error and goes on with the verbs that follow.
            line.errors.append(refused.error)
        finally:
            if teller:
                await teller
        return stream

    async def _tell(self, stream: MediaStream, wanted: verbs.Stream) -> None:
        """The stream's own callbacks: it has started, it has stopped or was lost."""
        await stream.settled.wait(None)
        if not stream.started.has_come():
            await self._notify(stream, wanted, "error")
            return
        await self._notify(stream, wanted, "started")
        await stream.ended.wait(None)
        await self._notify(stream, wanted, "lost" if stream.lost else "stopped")

    async def _notify(self, stream: MediaStream, wanted: verbs.Stream, event: str) -> None:
        form = self._office.dialect.stream_notice(self._line, stream.sid, event)
        await self._line.tell(wanted.callback, wanted.callback_method, form)


def _resolved(following: Document, document: Document) -> Document:
    """A relative URL of a verb leads on from the document's own; Refused (11100) where that has none."""
    if following.inline:
        return following
    url = urljoin(document.url, following.url)
    if not is_web_url(url):
        raise Refused(Fault.URL, f"{following.url!r} is no complete URL, and the document has none to complete it with")
    return replace(following, url=url)
