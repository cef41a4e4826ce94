// Answers the calls to a Twilio number: each caller gets a LiveKit room, and an agent. See README.md.

import { createServer } from 'node:http';

import { ConnectTwilioCallRequest_TwilioCallDirection } from '@livekit/protocol';
import { ConnectorClient } from 'livekit-server-sdk';
import twilio from 'twilio';

const LARGEST_FORM = 64 * 1024;

function setting(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`webhook: set ${name} (see README.md)`);
    process.exit(1);
  }
  return value;
}

const connectorClient = new ConnectorClient(
  setting('LIVEKIT_URL'),
  setting('LIVEKIT_API_KEY'),
  setting('LIVEKIT_API_SECRET'),
);
// The URL that Twilio signs is the one it was given, not what a proxy makes of it on the way here.
const url = `${setting('PUBLIC_URL').replace(/\/+$/, '')}/voice`;
const authToken = setting('TWILIO_AUTH_TOKEN');
const { AGENT_NAME: agentName, HOST: host = '127.0.0.1', PORT: port = '3000' } = process.env;

async function connect({ CallSid, From }) {
  const response = await connectorClient.connectTwilioCall({
    twilioCallDirection: ConnectTwilioCallRequest_TwilioCallDirection.INBOUND,
    roomName: `call-${CallSid}`,
    participantIdentity: From,
    participantName: From,
    agents: agentName ? [{ agentName }] : [],
  });
  const twiml = new twilio.twiml.VoiceResponse();
  twiml.say('This is LiveKit Twilio Connector.');
  twiml.connect().stream({ url: response.connectUrl });
  // When the stream has ended, the connector tells Twilio how the call goes on: stream again, or hang up.
  twiml.redirect({ method: 'POST' }, response.connectUrl.replace(/^ws/, 'http') + '/resume');
  return twiml.toString();
}

function apology() {
  const twiml = new twilio.twiml.VoiceResponse();
  twiml.say('We are sorry, this call cannot be connected right now. Please try again later.');
  twiml.hangup();
  return twiml.toString();
}

async function voice(form, signature) {
  if (!twilio.validateRequest(authToken, signature, url, form)) {
    return { status: 403, type: 'text/plain', body: 'the signature does not match\n' };
  }
  if (!form.CallSid || !form.From) {
    return { status: 400, type: 'text/plain', body: 'this is not about a call\n' };
  }
  let body;
  try {
    body = await connect(form);
  } catch (error) {
    // Whatever went wrong, somebody is on the phone and has to be told.
    console.error(`call ${form.CallSid} cannot be connected:`, error);
    body = apology();
  }
  return { status: 200, type: 'text/xml', body };
}

async function readForm(request) {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) {
    body += chunk;
    if (body.length > LARGEST_FORM) return null;
  }
  return Object.fromEntries(new URLSearchParams(body));
}

const server = createServer(async (request, response) => {
  let answer = { status: 404, type: 'text/plain', body: 'there is only POST /voice\n' };
  if (request.method === 'POST' && request.url === '/voice') {
    const form = await readForm(request).catch(() => null);
    answer = form
      ? await voice(form, request.headers['x-twilio-signature'])
      : { status: 400, type: 'text/plain', body: 'this is not a form of Twilio\n' };
  }
  response.writeHead(answer.status, { 'Content-Type': answer.type }).end(answer.body);
});
server.listen(Number(port), host, () => console.log(`listening on http://${host}:${port}, Twilio asks ${url}`));
