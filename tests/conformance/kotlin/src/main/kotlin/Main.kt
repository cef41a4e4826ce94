// ConnectTwilioCall with LiveKit's Kotlin SDK; see ../../../../README.md for how it is called.

import com.google.gson.GsonBuilder
import com.google.gson.JsonParser
import io.livekit.server.AccessToken
import io.livekit.server.ConnectorServiceClient
import io.livekit.server.RoomList
import io.livekit.server.TwilioCallOptions
import java.io.IOException
import livekit.LivekitAgentDispatch.RoomAgentDispatch
import livekit.LivekitConnectorTwilio.ConnectTwilioCallRequest.TwilioCallDirection
import okhttp3.OkHttpClient

private const val ATTRIBUTE = "attribute."

fun main(arguments: Array<String>) {
  val scenario = arguments[0]
  val values = arguments.drop(1).associate { it.substringBefore("=") to it.substringAfter("=") }
  println(GsonBuilder().serializeNulls().create().toJson(run(scenario, values)))
}

private fun run(scenario: String, values: Map<String, String>): Map<String, Any?> {
  val direction =
    if (scenario == "inbound") TwilioCallDirection.TWILIO_CALL_DIRECTION_INBOUND
    else TwilioCallDirection.TWILIO_CALL_DIRECTION_OUTBOUND
  val response =
    try {
      client(scenario).connectTwilioCall(twilioCallDirection = direction, options = options(values)).execute()
    } catch (error: IOException) {
      return mapOf("error" to mapOf("code" to null, "message" to error.message, "status" to null))
    }
  if (response.isSuccessful) return mapOf("connect_url" to response.body()!!.connectUrl)
  val refusal = JsonParser.parseString(response.errorBody()!!.string()).asJsonObject
  return mapOf(
    "error" to
      mapOf(
        "code" to refusal["code"].asString,
        "message" to refusal["msg"].asString,
        "status" to response.code(),
      ),
  )
}

private fun client(scenario: String): ConnectorServiceClient {
  val host = System.getenv("LIVEKIT_URL").replaceFirst(Regex("^ws"), "http")
  val apiKey = System.getenv("LIVEKIT_API_KEY")
  val secret = System.getenv("LIVEKIT_API_SECRET")
  if (scenario != "without-grant") return ConnectorServiceClient.createClient(host, apiKey, secret)
  val token = AccessToken(apiKey, secret).apply { addGrants(RoomList(true)) }.toJwt()
  val http =
    OkHttpClient.Builder()
      .addInterceptor { it.proceed(it.request().newBuilder().header("Authorization", "Bearer $token").build()) }
      .build()
  return ConnectorServiceClient.createClient(host, apiKey, secret) { http }
}

private fun options(values: Map<String, String>) =
  TwilioCallOptions(
    roomName = values["room"],
    destinationCountry = values["country"],
    participantIdentity = values["identity"],
    participantName = values["name"],
    participantMetadata = values["metadata"],
    participantAttributes =
      values.filterKeys { it.startsWith(ATTRIBUTE) }.mapKeys { it.key.removePrefix(ATTRIBUTE) },
    agents =
      values["agent"]?.let {
        listOf(
          RoomAgentDispatch.newBuilder().setAgentName(it).setMetadata(values["agent.metadata"].orEmpty()).build(),
        )
      },
  )
