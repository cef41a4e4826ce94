//! Answers the calls to a Twilio number: each caller gets a LiveKit room, and an agent. See README.md.

use std::env;
use std::process::exit;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use livekit_api::services::ServiceResult;
use livekit_api::services::connector::{ConnectTwilioCallOptions, ConnectorClient};
use livekit_protocol::RoomAgentDispatch;
use livekit_protocol::connect_twilio_call_request::TwilioCallDirection;
use sha1::Sha1;
use tokio::net::TcpListener;

const LARGEST_FORM: usize = 64 * 1024;
const APOLOGY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Response>
    <Say>We are sorry, this call cannot be connected right now. Please try again later.</Say>
    <Hangup/>
</Response>"#;

type Fields = Vec<(String, String)>;

struct Webhook {
    /// The URL that Twilio signs is the one it was given, not what a proxy makes of it on the way here.
    url: String,
    auth_token: String,
    connector_client: ConnectorClient,
    agents: Vec<RoomAgentDispatch>,
}

#[tokio::main]
async fn main() {
    let agents = env::var("AGENT_NAME").ok().filter(|name| !name.is_empty());
    let webhook = Webhook {
        url: format!("{}/voice", setting("PUBLIC_URL").trim_end_matches('/')),
        auth_token: setting("TWILIO_AUTH_TOKEN"),
        connector_client: ConnectorClient::with_api_key(
            &setting("LIVEKIT_URL"),
            &setting("LIVEKIT_API_KEY"),
            &setting("LIVEKIT_API_SECRET"),
        ),
        agents: agents
            .map(|agent_name| RoomAgentDispatch { agent_name, ..Default::default() })
            .into_iter()
            .collect(),
    };
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let port = env::var("PORT").unwrap_or_else(|_| "3000".into());
    let address = format!("{host}:{port}");
    let listener = TcpListener::bind(&address).await.unwrap_or_else(|error| {
        eprintln!("webhook: {address}: {error}");
        exit(1)
    });
    println!("listening on http://{address}, Twilio asks {}", webhook.url);
    let app = Router::new()
        .route("/voice", post(voice))
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .with_state(Arc::new(webhook));
    axum::serve(listener, app).await.expect("the server runs until it is stopped");
}

fn setting(name: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| {
        eprintln!("webhook: set {name} (see README.md)");
        exit(1)
    })
}

async fn voice(
    State(webhook): State<Arc<Webhook>>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Response {
    let signature = headers.get("X-Twilio-Signature").map(|value| value.as_bytes());
    if !signature_valid(&webhook.auth_token, &webhook.url, &fields, signature.unwrap_or_default()) {
        return (StatusCode::FORBIDDEN, "the signature does not match\n").into_response();
    }
    let (Some(call_sid), Some(from)) = (field(&fields, "CallSid"), field(&fields, "From")) else {
        return (StatusCode::BAD_REQUEST, "this is not about a call\n").into_response();
    };
    let twiml = webhook.connect(call_sid, from).await.unwrap_or_else(|error| {
        // Whatever went wrong, somebody is on the phone and has to be told.
        eprintln!("call {call_sid} cannot be connected: {error}");
        APOLOGY.into()
    });
    ([(header::CONTENT_TYPE, "text/xml")], twiml).into_response()
}

impl Webhook {
    async fn connect(&self, call_sid: &str, from: &str) -> ServiceResult<String> {
        let response = self
            .connector_client
            .connect_twilio_call(
                TwilioCallDirection::Inbound,
                format!("call-{call_sid}"),
                ConnectTwilioCallOptions {
                    participant_identity: Some(from.into()),
                    participant_name: Some(from.into()),
                    agents: Some(self.agents.clone()),
                    ..Default::default()
                },
            )
            .await?;
        // When the stream has ended, the connector tells Twilio how the call goes on: stream again, or hang up.
        let resume_url = format!("{}/resume", response.connect_url.replacen("ws", "http", 1));
        Ok(format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Response>
    <Say>This is LiveKit Twilio Connector.</Say>
    <Connect>
        <Stream url="{}" />
    </Connect>
    <Redirect method="POST">{}</Redirect>
</Response>"#,
            escape(&response.connect_url),
            escape(&resume_url)
        ))
    }
}

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let (_, value) = fields.iter().find(|(key, value)| key == name && !value.is_empty())?;
    Some(value)
}

/// Twilio has no package for Rust. It signs with HMAC-SHA1 the URL it was given and then each field's name and
/// value, in the order of the names: <https://www.twilio.com/docs/usage/security#validating-requests>
fn signature_valid(auth_token: &str, url: &str, fields: &Fields, signature: &[u8]) -> bool {
    let Ok(signature) = BASE64_STANDARD.decode(signature) else {
        return false;
    };
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut mac =
        Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("a key of any length will do");
    mac.update(url.as_bytes());
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    // In constant time.
    mac.verify_slice(&signature).is_ok()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
