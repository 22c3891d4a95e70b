"""Events of a monitoring job posted to an address: in order, again until they are taken, never elsewhere."""

import http.client
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import Webhook
from unlabeled.pipelines._sensors_secrets import secret_of
from unlabeled.sensors.logbook import Event, Logbook

CURSOR = "webhook"
REST = 10.0  # seconds for which one that did not take an event is left alone: readings must not wait for it
AT_ONCE = 2.0  # seconds after which the events that are left are for the next time
AGAIN = 3600.0  # seconds after which it is said once more that one is away
# What no repetition will change: the event is passed over, or it would stand in the way of all that follow.
FOR_GOOD = (400, 413, 422)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody: a token, and an address that is itself a secret, are for one host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


class Hook:
    """Posts each event as JSON with its id as ``Idempotency-Key``; what is not taken is posted again
    after a while.

    Raises:
        DataError: no address, a token that would travel unencrypted, or a secret that is not there.
    """

    def __init__(self, settings: Webhook) -> None:
        self.settings, self._url = settings, settings.address()
        self._token = secret_of("[webhook]", settings.token_env, settings.token_file)
        self._not_before, self._said = 0.0, -AGAIN

    def begin(self, book: Logbook) -> "Hook":
        """From a logbook that others told of before, only what comes from now on is posted."""
        if book.place(CURSOR)[1] is None:
            book.move_cursor(CURSOR, book.told_elsewhere())
        return self

    def tell(self, book: Logbook, asked: threading.Event) -> None:
        """Posts what was not told yet, for a moment, until the job is to end or an event is not taken."""
        began = time.monotonic()
        if began < self._not_before:
            return
        for event in book.events(after=book.cursor(CURSOR)):
            why = self._post(event)
            if why and why not in {f"HTTP {code}" for code in FOR_GOOD}:
                self._not_before = time.monotonic() + REST
                if time.monotonic() - self._said >= AGAIN:
                    say(f"the webhook has not taken event {event.id} ({why}); it is posted again")
                    self._said = time.monotonic()
                return
            if why:
                say(f"the webhook refuses event {event.id} for good ({why}); it is passed over")
            self._said = -AGAIN
            book.move_cursor(CURSOR, event.id)
            if asked.is_set() or time.monotonic() - began > AT_ONCE:
                return

    def _post(self, event: Event) -> str:
        """Why it was not taken; nothing where it was. Never quotes the address."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(event.id), "User-Agent": "unlabeled"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            request = urllib.request.Request(self._url, data=event.line().encode(), headers=headers, method="POST")
            with _OPENER.open(request, timeout=self.settings.timeout_seconds):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"HTTP {error.code}"
        except (OSError, ValueError, http.client.HTTPException) as error:  # away, slow, or nothing that speaks HTTP
            return type(error).__name__


def forget(book: Logbook) -> None:
    """Where there is no webhook, one that comes later is not told of the time without it."""
    book.drop_cursor(CURSOR)
