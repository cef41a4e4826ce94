// ConnectTwilioCall with livekit-server-sdk; see ../README.md for how it is called.

import { ConnectTwilioCallRequest_TwilioCallDirection } from '@livekit/protocol';
import { AccessToken, ConnectorClient, TwirpError } from 'livekit-server-sdk';

const [scenario, ...pairs] = process.argv.slice(2);
const values = Object.fromEntries(
  pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
);

async function client() {
  const { LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET } = process.env;
  if (scenario !== 'without-grant') {
    return new ConnectorClient(LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET);
  }
  const token = new AccessToken(LIVEKIT_API_KEY, LIVEKIT_API_SECRET);
  token.addGrant({ roomList: true });
  return new ConnectorClient(LIVEKIT_URL, undefined, undefined, { token: await token.toJwt() });
}

// The values have no prefix here, whatever LiveKit's document says: the last one is undefined.
const DIRECTIONS = {
  inbound: ConnectTwilioCallRequest_TwilioCallDirection.INBOUND,
  outbound: ConnectTwilioCallRequest_TwilioCallDirection.OUTBOUND,
  'without-grant': ConnectTwilioCallRequest_TwilioCallDirection.OUTBOUND,
  'as-documented': ConnectTwilioCallRequest_TwilioCallDirection.TWILIO_CALL_DIRECTION_OUTBOUND,
};

function options() {
  const attributes = Object.entries(values).filter(([key]) => key.startsWith('attribute.'));
  return {
    twilioCallDirection: DIRECTIONS[scenario],
    roomName: values.room,
    destinationCountry: values.country,
    participantIdentity: values.identity,
    participantName: values.name,
    participantMetadata: values.metadata,
    participantAttributes: Object.fromEntries(
      attributes.map(([key, value]) => [key.slice('attribute.'.length), value]),
    ),
    agents: values.agent && [{ agentName: values.agent, metadata: values['agent.metadata'] }],
  };
}

let result;
try {
  const connectorClient = await client();
  const response = await connectorClient.connectTwilioCall(options());
  result = { connect_url: response.connectUrl };
} catch (error) {
  result =
    error instanceof TwirpError
      ? { error: { code: error.code ?? null, message: error.message, status: error.status } }
      : { error: { code: null, message: `${error.message}: ${error.cause?.message}`, status: null } };
}
console.log(JSON.stringify(result));
