//! The path of one request: limits, rule, action, and for a forward action the exchange with a target.

use std::{error::Error, io, rc::Rc, sync::Arc};

use domain::balancing::ProtocolVersion;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri};
use hyper::body::{Body as _, Incoming};

use crate::{
    body::{RequestBody, ResponseBody},
    client::{Client, InFlight},
    condition::RequestView,
    headers,
    pool::{ConnectError, Lease, Pool, Sender},
    redirect::Parts,
    responses::{self, Failure},
    routing::{Action, Routing},
    sticky::Chosen,
    tunnel,
    worker::Worker,
};

/// The connection must be closed without a response.
#[derive(Debug, thiserror::Error)]
pub enum Abort {
    /// The listener has been deleted.
    #[error("the listener is gone")]
    ListenerGone,
    /// The client went away in the middle of its request.
    #[error("the client closed the connection")]
    ClientGone,
}

/// Answers a request.
pub async fn respond(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Abort> {
    let guard = client.begin(!request.body().is_end_stream());
    let response = answer(&client, request, guard).await;
    client.responding();
    response
}

async fn answer(
    client: &Rc<Client>,
    request: Request<Incoming>,
    mut guard: InFlight,
) -> Result<Response<ResponseBody>, Abort> {
    if let Err(failure) = check(&request) {
        return Ok(failure.response(guard));
    }
    let way = {
        let table = client.worker.table();
        let routing = &table.routing;
        // One that has changed its protocol is another one to those who came before.
        let listener = routing.listener(client.port).filter(|listener| listener.tls.is_some() == client.secure);
        let listener = listener.ok_or(Abort::ListenerGone)?;
        let action =
            if listener.has_rules() { listener.action(&view(client, &request)) } else { listener.default_action() };
        match action {
            Action::Fixed(fixed) => return Ok(fixed.response(guard)),
            Action::Redirect(redirect) => {
                let host = headers::without_port(host(&request));
                let parts = Parts { protocol: client.scheme(), host, port: client.port, uri: request.uri() };
                return Ok(responses::redirect(redirect.status, &redirect.location(&parts), guard));
            }
            Action::Forward(forward) => {
                let worker = &client.worker;
                let chosen = forward.choose(&routing.groups, request.headers(), &worker.key, || seconds(worker));
                let pool = chosen.as_ref().and_then(|chosen| table.pool(chosen.group, chosen.target));
                let (Some(chosen), Some(pool)) = (chosen, pool) else {
                    return Ok(Failure::Unavailable.response(guard));
                };
                guard.counted = routing.groups.get(chosen.group).and_then(|group| group.count(chosen.target));
                Way { pool, routing: routing.clone(), chosen }
            }
        }
    };
    forward(client, &way, request, guard).await
}

/// Where a request goes.
struct Way {
    pool: Rc<Pool>,
    routing: Arc<Routing>,
    chosen: Chosen,
}

/// Seconds since the epoch, as cookies have them.
fn seconds(worker: &Worker) -> u32 {
    u32::try_from(worker.seconds()).unwrap_or(u32::MAX)
}

fn check(request: &Request<Incoming>) -> Result<(), Failure> {
    if request.method() == Method::TRACE {
        return Err(Failure::MethodNotAllowed);
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let needs_host = request.version() == Version::HTTP_11 && hosts == 0;
    if request.method() == Method::CONNECT || needs_host || (hosts > 1) {
        return Err(Failure::BadRequest);
    }
    let given = request.headers().get(header::HOST).map_or(&b""[..], |host| host.as_bytes());
    if !headers::is_host(given) || !headers::is_host(host(request).as_bytes()) {
        return Err(Failure::BadRequest);
    }
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    headers::check(path, request.headers())
}

/// Whether the target may find another end of the request than we do: many take no body from these methods, and would read
/// one as the next request. Amazon's defensive mode sends it, and closes both connections afterwards.
fn is_ambiguous(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && !request.body().is_end_stream()
}

/// The host that was asked for, with its port if it has one.
fn host(request: &Request<Incoming>) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

fn view<'a>(client: &Client, request: &'a Request<Incoming>) -> RequestView<'a> {
    RequestView {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        host: headers::without_port(host(request)),
        headers: request.headers(),
        source: client.peer.ip(),
    }
}

async fn forward(
    client: &Rc<Client>,
    way: &Way,
    mut request: Request<Incoming>,
    mut guard: InFlight,
) -> Result<Response<ResponseBody>, Abort> {
    let Way { pool, routing, chosen } = way;
    let http1 = pool.version() == ProtocolVersion::Http1;
    let ambiguous = http1 && is_ambiguous(&request);
    let websocket = http1 && !client.http2 && headers::asks_for_websocket(request.headers());
    let client_upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
    let Some(request) = outgoing(client, routing, pool, request, websocket) else {
        return Ok(Failure::BadRequest.response(guard));
    };
    let (mut response, sender) = match exchange(client, pool, request, websocket, ambiguous).await {
        Ok(exchanged) => exchanged,
        Err(Ending::Abort) => return Err(Abort::ClientGone),
        Err(Ending::Failure(failure)) => return Ok(failure.response(guard)),
    };
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let last = websocket || ambiguous || headers::is_ambiguous(response.status(), response.headers());
    *response.version_mut() = Version::HTTP_11;
    headers::to_client(response.headers_mut(), switching);
    if ambiguous && !client.http2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if chosen.is_sticky() {
        let worker = &client.worker;
        chosen.set_cookies(response.headers_mut(), &routing.groups, &worker.key, seconds(worker));
    }
    match (switching, client_upgrade) {
        (false, _) => {
            let mut lease = Lease::new(pool.clone(), sender, last);
            if response.body().is_end_stream() {
                lease.finished();
            }
            Ok(response.map(|inner| ResponseBody::Target { inner, lease, guard }))
        }
        (true, Some(client_upgrade)) => {
            let target_upgrade = hyper::upgrade::on(&mut response);
            let (client, counted) = (client.clone(), guard.counted.take());
            pool.run(async move {
                tunnel::run(client, client_upgrade, target_upgrade).await;
                drop(counted);
            });
            Ok(response.map(|_| ResponseBody::whole(bytes::Bytes::new(), guard)))
        }
        // A target that switches protocols without being asked.
        (true, None) => Ok(Failure::BadGateway.response(guard)),
    }
}

/// The request as the target gets it; none if its host or path cannot be written.
fn outgoing(
    client: &Rc<Client>,
    routing: &Routing,
    pool: &Pool,
    request: Request<Incoming>,
    websocket: bool,
) -> Option<Request<RequestBody>> {
    let attributes = &routing.attributes;
    let host = match host(&request) {
        // HTTP/1.0 needs no Host: the target gets our own address.
        "" => headers::host(&client.local.ip().to_string(), client.port, false),
        host => headers::host(host, client.port, attributes.preserve_host_header),
    }?;
    let mut request = request.map(|body| RequestBody::new(body, client.clone()));
    headers::to_target(request.headers_mut(), client, attributes, websocket);
    match pool.version() {
        ProtocolVersion::Http1 => {
            if request.uri().authority().is_some() {
                *request.uri_mut() = Uri::from(request.uri().path_and_query()?.clone());
            }
            request.headers_mut().insert(header::HOST, host);
            *request.version_mut() = Version::HTTP_11;
        }
        ProtocolVersion::Http2 => {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(if pool.secure() { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
            parts.authority = Some(uri::Authority::try_from(host.as_bytes()).ok()?);
            parts.path_and_query =
                Some(request.uri().path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
            *request.uri_mut() = Uri::from_parts(parts).ok()?;
            request.headers_mut().remove(header::HOST);
            *request.version_mut() = Version::HTTP_2;
        }
    }
    Some(request)
}

/// Whether what stopped a client's body is that its chunks cannot be read.
fn is_malformed(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    let mut next = Error::source(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput)) {
            return true;
        }
        next = error.source();
    }
    false
}

enum Ending {
    Failure(Failure),
    Abort,
}

/// Sends the request over a free connection or a new one. Only a request that never left is sent a second time.
async fn exchange(
    client: &Rc<Client>,
    pool: &Rc<Pool>,
    mut request: Request<RequestBody>,
    websocket: bool,
    ambiguous: bool,
) -> Result<(Response<Incoming>, Sender), Ending> {
    loop {
        let kept = if websocket || ambiguous { None } else { pool.checkout() };
        let fresh = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            None => match client.until_expired(pool.connect(websocket)).await {
                Ok(Ok(sender)) => sender,
                Ok(Err(error)) => {
                    tracing::debug!(target = %pool.address(), %error, "no connection");
                    let timeout = matches!(error, ConnectError::Timeout);
                    return Err(Ending::Failure(if timeout { Failure::GatewayTimeout } else { Failure::BadGateway }));
                }
                Err(_) => return Err(Ending::Failure(Failure::GatewayTimeout)),
            },
        };
        match client.until_expired(sender.send(request)).await {
            Ok(Ok(response)) => return Ok((response, sender)),
            Ok(Err(mut error)) => match error.take_message() {
                Some(unsent) if !fresh => request = unsent,
                _ => {
                    let error = error.into_error();
                    tracing::debug!(target = %pool.address(), %error, "no response");
                    return Err(match error.is_user() {
                        false => Ending::Failure(Failure::BadGateway),
                        true if is_malformed(&error) => Ending::Failure(Failure::BadRequest),
                        // The client's own body broke off, so there is nobody to answer.
                        true => Ending::Abort,
                    });
                }
            },
            Err(_) if client.body_pending() => return Err(Ending::Failure(Failure::RequestTimeout)),
            Err(_) => return Err(Ending::Failure(Failure::GatewayTimeout)),
        }
    }
}
