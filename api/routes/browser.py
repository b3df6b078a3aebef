"""What people see: login, their servers, a form for a public key, and the certificate with what to type.

Handlers translate between forms and `api.desk`.
"""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from api import desk, views
from api.client_files import known_hosts
from api.commands import certificate_file_name, in_words, key_file_name
from api.desk import Issued, Wish
from api.errors import Refused, status_of
from api.front import Front, FrontDoor
from api.home import gather
from api.pages import Step, attachment, static_file
from api.routes.forms import Page, asked_from, field, form_of, session_of, text_of_file
from api.services import Injected, Services
from api.session import Session
from ca.audit import LoggedIn, LoginRefused
from ca.certificate import blob_of
from ca.errors import Malformed, Reason, Refusal
from ca.keys import PublicKey, parse_key_blob
from ca.trust import genuine

NOTICES = {
    "revoked": "The certificate was revoked. Sessions that were opened with it are cut.",
    "running": "The server runs.",
    "ended": "The session was ended.",
    "stopping": "The server stops. Its SSH sessions end, and certificates for this run open it no more.",
}

_NOT_OURS = Refusal(Reason.BAD_KEY, "That is not a certificate of yours from here. Get a new one.")


router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/")
async def home(request: Request, services: Injected, front: FrontDoor) -> Response:
    """The first page: one's servers, the form and one's certificates; a greeting for whoever has no session."""
    session = front.sessions.read(request.cookies)
    if session is None:
        return front.pages.page("welcome", None)
    return await _home(request, services, front, session)


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
    if before is not None:
        await services.store.log_out(before.id, before.user, services.now_ms())
    front.sessions.begin(response, who.user, who.admin, before=before, made=who.made)
    front.login.forget(response, request.cookies, request.query_params.get("state", ""))
    services.audit(LoggedIn(user=who.user, admin=who.admin, peer=asked_from(request, services)))
    return response


@router.post("/logout")
async def logout(request: Request, services: Injected, front: FrontDoor) -> Response:
    """The session here ends. That JupyterHub's goes on is said on the page."""
    session = front.sessions.read(request.cookies)
    if session is not None:
        await form_of(request, services, front, session)
    response = front.pages.page("logged_out", None)
    front.sessions.end(response, session)
    if session is not None:  # for the other replicas; if they cannot be told, nobody is told that it is done
        await services.store.log_out(session.id, session.user, services.now_ms())
    return response


@router.post("/certificates/form")
async def certificate_form(request: Request, services: Injected, front: FrontDoor) -> Response:
    """A certificate for the pasted key: shown with what to do with it, or as a file."""
    session = session_of(request, front)
    form = await form_of(request, services, front, session, max_files=1)
    chosen = field(form, "other") or field(form, "server")
    from_file = await text_of_file(form, "key_file")
    wish = Wish(public_key=field(form, "public_key").strip() or from_file, server=chosen or None)
    issued = await desk.for_session(services, session, wish, asked_from(request, services))
    if isinstance(issued, Refusal):
        again = {"public_key": _shown_again(wish.public_key), "chosen": chosen}
        return await _home(request, services, front, session, problem=issued, **again)
    if field(form, "then") == "download":
        return attachment(f"{issued.signed.line}\n", certificate_file_name(issued.key))
    return _certificate(services, front, session, issued)


@router.post("/certificates/file")
async def certificate_file(request: Request, services: Injected, front: FrontDoor) -> Response:
    """A certificate that was just shown, as a file. It is not kept here, so the page sends it along."""
    session = session_of(request, front)
    text = field(await form_of(request, services, front, session), "certificate").strip()
    key = _certified_key(services, text, session)
    if key is None:
        raise Refused(_NOT_OURS)
    return attachment(f"{text}\n", certificate_file_name(key))


@router.post("/certificates/{serial}/revoke")
async def revoke_form(serial: str, request: Request, services: Injected, front: FrontDoor) -> Response:
    """The button in the list of one's certificates."""
    session = session_of(request, front)
    await form_of(request, services, front, session)
    peer = asked_from(request, services)
    refusal = await desk.is_gone(services, session, without_hub=True)
    refusal = refusal or await desk.revoke(services, serial, session.user, peer=peer, route="/certificates")
    if refusal is not None:
        raise Refused(refusal)
    return RedirectResponse(f"{front.pages.site}/?done=revoked", 303)


async def _home(
    request: Request,
    services: Services,
    front: Front,
    session: Session,
    *,
    problem: Refusal | None = None,
    public_key: str = "",
    chosen: str = "",
) -> Response:
    gathered = await gather(services, front.door, session, request.query_params.get("watch", ""))
    if isinstance(gathered, Refusal):
        return front.pages.problem("Please log in again", gathered.sentence, 403, session)
    return front.pages.page(
        "home",
        session,
        status_of(problem) if problem else 200,
        home=gathered,
        notice=NOTICES.get(request.query_params.get("done", "")),
        problem=problem.sentence if problem else None,
        chosen=chosen,
        public_key=public_key,
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
    services.audit(LoginRefused(user=None, reason=refusal.reason, peer=asked_from(request, services)))
    again = Step("Log in again", f"{front.pages.site}/login")
    return front.pages.problem("You are not logged in", refusal.sentence, status_of(refusal), None, again)
