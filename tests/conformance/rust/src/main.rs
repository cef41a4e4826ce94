//! ConnectTwilioCall with LiveKit's Rust SDK; see ../../README.md for how it is called.

use std::collections::HashMap;
use std::env;

use livekit_api::access_token::{AccessToken, VideoGrants};
use livekit_api::services::connector::{ConnectTwilioCallOptions, ConnectorClient};
use livekit_api::services::{ServiceError, ServiceResult, TwirpError};
use livekit_protocol::RoomAgentDispatch;
use livekit_protocol::connect_twilio_call_request::TwilioCallDirection;
use serde_json::{Value, json};

type Values = HashMap<String, String>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = env::args().skip(1);
    let scenario = arguments.next().expect("a scenario");
    let values: Values = arguments
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    println!("{}", run(&scenario, values).await);
}

async fn run(scenario: &str, values: Values) -> Value {
    let direction = match scenario {
        "inbound" => TwilioCallDirection::Inbound,
        _ => TwilioCallDirection::Outbound,
    };
    let room = values.get("room").cloned().unwrap_or_default();
    let connector_client = match client(scenario) {
        Ok(connector_client) => connector_client,
        Err(error) => return describe(&error),
    };
    match connector_client.connect_twilio_call(direction, room, options(values)).await {
        Ok(response) => json!({ "connect_url": response.connect_url }),
        Err(error) => describe(&error),
    }
}

fn client(scenario: &str) -> ServiceResult<ConnectorClient> {
    let host = env::var("LIVEKIT_URL")?;
    if scenario != "without-grant" {
        return ConnectorClient::new(&host);
    }
    let grants = VideoGrants { room_list: true, ..Default::default() };
    let token = AccessToken::new()?.with_grants(grants).to_jwt()?;
    Ok(ConnectorClient::with_token(&host, &token))
}

fn options(values: Values) -> ConnectTwilioCallOptions {
    let get = |key: &str| values.get(key).cloned();
    let attributes = values.iter().filter_map(|(key, value)| {
        Some((key.strip_prefix("attribute.")?.to_owned(), value.clone()))
    });
    ConnectTwilioCallOptions {
        destination_country: get("country"),
        participant_identity: get("identity"),
        participant_name: get("name"),
        participant_metadata: get("metadata"),
        participant_attributes: Some(attributes.collect()),
        agents: get("agent").map(|agent_name| {
            vec![RoomAgentDispatch {
                agent_name,
                metadata: get("agent.metadata").unwrap_or_default(),
                ..Default::default()
            }]
        }),
    }
}

fn describe(error: &ServiceError) -> Value {
    let (code, message) = match error {
        ServiceError::Twirp(TwirpError::Twirp(refusal)) => (Some(&refusal.code), refusal.msg.clone()),
        other => (None, other.to_string()),
    };
    json!({ "error": { "code": code, "message": message, "status": null } })
}
