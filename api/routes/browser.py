"""What people see: login, their servers, a form for a public key, and the certificate with what to type.

Handlers translate between forms and `api.desk`. Refusals and outages become pages with a sentence and a next
step, in one place: `_Page`.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from api import desk, views
from api.client_files import known_hosts
from api.commands import certificate_file_name, in_words, key_file_name
from api.desk import Issued, Wish
from api.errors import HubUnavailable, Refused, Unavailable, status_of
from api.front import Front, FrontDoor, front_of
from api.pages import Step, attachment, static_file
from api.sender import peer_of
from api.services import Injected, Services
from api.session import LIFETIME, Session
from ca.audit import LoggedIn, LoginRefused, RequestRefused
from ca.certificate import blob_of
from ca.claims import Claims
from ca.errors import Malformed, Reason, Refusal
from ca.keys import PublicKey, parse_key_blob
from ca.trust import genuine

MAX_FIELDS = 10
MAX_FIELD_BYTES = 65536
NOTICES = {"revoked": "The certificate was revoked. Sessions that were opened with it are cut."}

_LOG_IN = Refusal(Reason.INVALID_TOKEN, "You are not logged in here, or your session has ended. Log in again.")
_NOT_A_FORM = Refusal(Reason.NOT_PERMITTED, "This form cannot be read. Reload the page and send it again.")
_NOT_OURS = Refusal(Reason.BAD_KEY, "That is not a certificate of yours from here. Get a new one.")
_TITLES = {401: "Please log in", 403: "That did not work", 404: "Not found", 503: "Not available at the moment"}


class _Page(APIRoute):
    """A route for people: what goes wrong becomes a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_with_a_page(request: Request) -> Response:
            try:
                return await answer(request)
            except Refused as error:
                return _problem(request, status_of(error.refusal), error.refusal.sentence)
            except Unavailable as error:
                return _problem(request, 503, str(error))

        return answer_with_a_page


router = APIRouter(route_class=_Page, include_in_schema=False)


@router.get("/")
async def home(request: Request, services: Injected, front: FrontDoor) -> Response:
    """The first page: one's servers, the form and one's certificates; a greeting for whoever has no session."""
    session = front.sessions.read(request.cookies)
    if session is None:
        return front.pages.page("welcome", None)
    notice = NOTICES.get(request.query_params.get("done", ""))
    return await _home(services, front, session, notice=notice)


@router.get("/static/{name}")
async def static(name: str, front: FrontDoor) -> Response:
    """The few files that pages load."""
    return static_file(name) or front.pages.problem("Not found", "There is no such file here.", 404)


@router.get("/login")
async def login(request: Request, front: FrontDoor) -> Response:
    """Off to JupyterHub; `next` is a path of this site to come back to."""
    url, remember = front.login.begin(request.cookies, request.query_params.get("next", "/"))
    response = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    remember(response)
    return response


@router.get("/oauth_callback")
async def oauth_callback(request: Request, services: Injected, front: FrontDoor) -> Response:
    """Back from JupyterHub: a new session, whatever cookie the browser came with."""
    arrival = await front.login.finish(request.query_params, request.cookies)
    if isinstance(arrival, Refusal):
        return _not_logged_in(request, services, front, arrival)
    who = await desk.login_owner(services, arrival.access_token)
    if isinstance(who, Refusal):
        return _not_logged_in(request, services, front, who)
    response = RedirectResponse(f"{front.pages.site}{arrival.next}", 303, {"Cache-Control": "no-store"})
    before = front.sessions.read(request.cookies)
    front.sessions.begin(response, who.user, who.admin, before=before, made=who.made)
    front.login.forget(response, request.cookies, request.query_params.get("state", ""))
    services.audit(LoggedIn(user=who.user, admin=who.admin, peer=_peer(request, services)))
    return response


@router.post("/logout")
async def logout(request: Request, services: Injected, front: FrontDoor) -> Response:
    """The session here ends. That JupyterHub's goes on is said on the page."""
    session = front.sessions.read(request.cookies)
    if session is not None:
        await _form(request, services, front, session)
    response = front.pages.page("logged_out", None)
    front.sessions.end(response, session)
    return response


@router.post("/certificates/form")
async def certificate_form(request: Request, services: Injected, front: FrontDoor) -> Response:
    """A certificate for the pasted key: shown with what to do with it, or as a file."""
    session = _session(request, front)
    form = await _form(request, services, front, session)
    chosen = _field(form, "other") or _field(form, "server")
    wish = Wish(public_key=_field(form, "public_key"), server=chosen or None)
    issued = await desk.for_session(services, session, wish, _peer(request, services))
    if isinstance(issued, Refusal):
        again = {"public_key": _shown_again(wish.public_key), "chosen": chosen}
        return await _home(services, front, session, problem=issued, **again)
    if _field(form, "then") == "download":
        return attachment(f"{issued.signed.line}\n", certificate_file_name(issued.key))
    return _certificate(services, front, session, issued)


@router.post("/certificates/file")
async def certificate_file(request: Request, services: Injected, front: FrontDoor) -> Response:
    """A certificate that was just shown, as a file. It is not kept here, so the page sends it along."""
    session = _session(request, front)
    text = _field(await _form(request, services, front, session), "certificate").strip()
    key = _certified_key(services, text, session)
    if key is None:
        raise Refused(_NOT_OURS)
    return attachment(f"{text}\n", certificate_file_name(key))


@router.post("/certificates/{serial}/revoke")
async def revoke_form(serial: str, request: Request, services: Injected, front: FrontDoor) -> Response:
    """The button in the list of one's certificates."""
    session = _session(request, front)
    await _form(request, services, front, session)
    refusal = await desk.revoke(services, serial, session.user, anybodys=False, peer=_peer(request, services))
    if refusal is not None:
        raise Refused(refusal)
    return RedirectResponse(f"{front.pages.site}/?done=revoked", 303)


async def _home(
    services: Services,
    front: Front,
    session: Session,
    *,
    notice: str | None = None,
    problem: Refusal | None = None,
    public_key: str = "",
    chosen: str = "",
) -> Response:
    claims: Claims | None = None
    unknown: str | None = None
    try:
        asked = await desk.session_claims(services, session)
    except HubUnavailable as error:
        unknown = f"{error} It is not known which of your servers run. Reload this page in a minute."
    else:
        if isinstance(asked, Refusal):
            return front.pages.problem("Please log in again", asked.sentence, 403, session)
        claims = asked
    enrolled = {one.instance: one for one in services.store.snapshot.enrolments}
    running = [one for one in claims.running if one.via != "admin"] if claims else []
    servers = views.running_views(running, enrolled, front.door)
    now = services.now()
    return front.pages.page(
        "home",
        session,
        status_of(problem) if problem else 200,
        notice=notice,
        problem=problem.sentence if problem else None,
        unknown=unknown,
        servers=servers,
        choices=[one for one in servers if one.ready],
        chosen=chosen,
        public_key=public_key,
        certificates=views.certificate_views(await desk.own_certificates(services, session.user), now),
        as_admin=services.rules.admin_ssh and claims is not None and claims.admin,
        login_left=in_words(session.ends_at - now) if session.ends_at - now < LIFETIME / 2 else None,
    )


def _certificate(services: Services, front: Front, session: Session, issued: Issued) -> Response:
    settings = services.settings
    enrolled = {one.instance: one for one in services.store.snapshot.enrolments}
    return front.pages.page(
        "certificate",
        session,
        certificate=issued.signed.line,
        lifetime=in_words(issued.signed.valid_before - services.now()),
        valid_before=issued.signed.valid_before,
        servers=views.certified_views(issued.instances, session.user, enrolled, front.door),
        file_name=certificate_file_name(issued.key),
        key_name=key_file_name(issued.key),
        known_hosts=known_hosts(settings.bastion, settings.zone, services.signer.public.host).strip(),
    )


def _session(request: Request, front: Front) -> Session:
    session = front.sessions.read(request.cookies)
    if session is None:
        raise Refused(_LOG_IN)
    return session


async def _form(request: Request, services: Services, front: Front, session: Session) -> FormData:
    """The fields of a form that this session's own page sent. Raises `Refused`, which is audited."""
    try:
        form = await request.form(max_files=0, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException:
        raise Refused(_NOT_A_FORM) from None
    refusal = front.sessions.judge_form(session, _field(form, "form_token"), request.headers)
    if refusal is not None:
        services.audit(RequestRefused(route=request.url.path, reason=refusal.reason, peer=_peer(request, services)))
        raise Refused(refusal)
    return form


def _field(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _shown_again(text: str) -> str:
    """What was pasted, for another try; never a private key, never megabytes."""
    return "" if "PRIVATE KEY" in text or len(text) > 4096 else text


def _certified_key(services: Services, text: str, session: Session) -> PublicKey | None:
    """The key of a certificate that we signed for this very user; None for every other text."""
    try:
        certificate = genuine(blob_of(text), services.signer.public.user)
        if certificate is None or certificate.key_id != session.user:
            return None
        return parse_key_blob(certificate.key_blob)
    except Malformed:
        return None


def _not_logged_in(request: Request, services: Services, front: Front, refusal: Refusal) -> Response:
    services.audit(LoginRefused(user=None, reason=refusal.reason, peer=_peer(request, services)))
    again = Step("Log in again", f"{front.pages.site}/login")
    return front.pages.problem("You are not logged in", refusal.sentence, status_of(refusal), None, again)


def _problem(request: Request, status: int, sentence: str) -> Response:
    front = front_of(request)
    session = front.sessions.read(request.cookies)
    steps = () if session else (Step("Log in", f"{front.pages.site}/login"),)
    response = front.pages.problem(_TITLES.get(status, "That did not work"), sentence, status, session, *steps)
    if status == 503:
        response.headers["Retry-After"] = "10"
    return response


def _peer(request: Request, services: Services) -> str | None:
    return peer_of(request, services.settings.listen.trusted_proxies)
