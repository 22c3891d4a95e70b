"""Events of a monitoring job posted to an address: in order, again until they are taken, never elsewhere."""

import time
import urllib.error
import urllib.request
from typing import Any

from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import Webhook, secret_of
from unlabeled.sensors.logbook import Event, Logbook

CURSOR = "webhook"
REST = 10.0  # seconds for which one that did not take an event is left alone: readings must not wait for it


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
        self._away, self._not_before = False, 0.0

    def begin(self, book: Logbook) -> "Hook":
        """From a logbook that others told of before, only what comes from now on is posted."""
        if book.place(CURSOR)[1] is None:
            book.move_cursor(CURSOR, book.told_elsewhere())
        return self

    def tell(self, book: Logbook) -> None:
        """Posts what was not told yet."""
        if time.monotonic() < self._not_before:
            return
        for event in book.events(after=book.cursor(CURSOR)):
            why = self._post(event)
            if why:
                if not self._away:
                    say(f"the webhook has not taken event {event.id} ({why}); it is posted again")
                self._away, self._not_before = True, time.monotonic() + REST
                return
            self._away = False
            book.move_cursor(CURSOR, event.id)

    def _post(self, event: Event) -> str:
        """Why it was not taken; nothing where it was. Never quotes the address."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(event.id), "User-Agent": "unlabeled"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url, data=event.line().encode(), headers=headers, method="POST")
        try:
            with _OPENER.open(request, timeout=self.settings.timeout_seconds):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"HTTP {error.code}"
        except (OSError, ValueError) as error:  # away, slow, or no address that can be asked
            return type(error).__name__
