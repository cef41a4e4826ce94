// Answers the calls to a Twilio number: each caller gets a LiveKit room, and an agent. See README.md.

import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import com.twilio.http.HttpMethod
import com.twilio.security.RequestValidator
import com.twilio.twiml.VoiceResponse
import com.twilio.twiml.voice.Connect
import com.twilio.twiml.voice.Hangup
import com.twilio.twiml.voice.Redirect
import com.twilio.twiml.voice.Say
import com.twilio.twiml.voice.Stream
import io.livekit.server.ConnectorServiceClient
import io.livekit.server.TwilioCallOptions
import java.io.IOException
import java.net.InetSocketAddress
import java.net.URLDecoder
import java.util.concurrent.Executors
import kotlin.system.exitProcess
import livekit.LivekitAgentDispatch.RoomAgentDispatch
import livekit.LivekitConnectorTwilio.ConnectTwilioCallRequest.TwilioCallDirection

private const val LARGEST_FORM = 64 * 1024
private const val CALLS_AT_ONCE = 16

fun main() {
  val webhook =
    Webhook(
      publicUrl = setting("PUBLIC_URL"),
      authToken = setting("TWILIO_AUTH_TOKEN"),
      agentName = System.getenv("AGENT_NAME").orEmpty(),
      connectorClient =
        ConnectorServiceClient.createClient(
          host = setting("LIVEKIT_URL").replaceFirst(Regex("^ws"), "http"),
          apiKey = setting("LIVEKIT_API_KEY"),
          secret = setting("LIVEKIT_API_SECRET"),
        ),
    )
  val host = System.getenv("HOST") ?: "127.0.0.1"
  val port = (System.getenv("PORT") ?: "3000").toInt()
  val server = HttpServer.create(InetSocketAddress(host, port), 0)
  server.createContext("/voice", webhook::voice)
  server.executor = Executors.newFixedThreadPool(CALLS_AT_ONCE)
  server.start()
  println("listening on http://$host:$port, Twilio asks ${webhook.url}")
}

private fun setting(name: String): String =
  System.getenv(name)?.ifEmpty { null }
    ?: run {
      System.err.println("webhook: set $name (see README.md)")
      exitProcess(1)
    }

private class Webhook(
  publicUrl: String,
  authToken: String,
  private val agentName: String,
  private val connectorClient: ConnectorServiceClient,
) {
  // The URL that Twilio signs is the one it was given, not what a proxy makes of it on the way here.
  val url = publicUrl.trimEnd('/') + "/voice"
  private val validator = RequestValidator(authToken)

  fun voice(exchange: HttpExchange) {
    exchange.use {
      val body = exchange.requestBody.readNBytes(LARGEST_FORM)
      val form = if (exchange.requestMethod == "POST") parseForm(body.decodeToString()) else emptyMap()
      val signature = exchange.requestHeaders.getFirst("X-Twilio-Signature").orEmpty()
      val callSid = form["CallSid"]
      val from = form["From"]
      if (!validator.validate(url, form, signature)) {
        exchange.answer(403, "text/plain", "the signature does not match\n")
      } else if (callSid == null || from == null) {
        exchange.answer(400, "text/plain", "this is not about a call\n")
      } else {
        exchange.answer(200, "text/xml", twiml(callSid, from))
      }
    }
  }

  private fun twiml(callSid: String, from: String): String =
    try {
      connect(callSid, from)
    } catch (error: IOException) {
      // Whatever went wrong, somebody is on the phone and has to be told.
      System.err.println("call $callSid cannot be connected: $error")
      apology()
    }

  /** Throws IOException when there is no connect_url to be had. */
  private fun connect(callSid: String, from: String): String {
    val agents =
      if (agentName.isEmpty()) emptyList()
      else listOf(RoomAgentDispatch.newBuilder().setAgentName(agentName).build())
    val response =
      connectorClient
        .connectTwilioCall(
          twilioCallDirection = TwilioCallDirection.TWILIO_CALL_DIRECTION_INBOUND,
          options =
            TwilioCallOptions(
              roomName = "call-$callSid",
              participantIdentity = from,
              participantName = from,
              agents = agents,
            ),
        )
        .execute()
    // A refusal is no exception here: it is a response without a body.
    val connectUrl =
      response.body()?.connectUrl ?: throw IOException("${response.code()}: ${response.errorBody()?.string()}")
    return VoiceResponse.Builder()
      .say(Say.Builder("This is LiveKit Twilio Connector.").build())
      .connect(Connect.Builder().stream(Stream.Builder().url(connectUrl).build()).build())
      // When the stream has ended, the connector tells Twilio how the call goes on: stream again, or hang up.
      .redirect(Redirect.Builder("http${connectUrl.removePrefix("ws")}/resume").method(HttpMethod.POST).build())
      .build()
      .toXml()
  }
}

private fun apology(): String =
  VoiceResponse.Builder()
    .say(
      Say.Builder("We are sorry, this call cannot be connected right now. Please try again later.").build(),
    )
    .hangup(Hangup.Builder().build())
    .build()
    .toXml()

private fun parseForm(body: String): Map<String, String> =
  body
    .split("&")
    .filter { it.isNotEmpty() }
    .associate { decode(it.substringBefore("=")) to decode(it.substringAfter("=", "")) }

private fun decode(text: String): String = URLDecoder.decode(text, Charsets.UTF_8)

private fun HttpExchange.answer(status: Int, contentType: String, text: String) {
  val body = text.toByteArray()
  responseHeaders["Content-Type"] = contentType
  sendResponseHeaders(status, body.size.toLong())
  responseBody.write(body)
}
