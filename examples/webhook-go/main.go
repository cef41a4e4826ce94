// Answers the calls to a Twilio number: each caller gets a LiveKit room, and an agent. See README.md.
package main

import (
	"cmp"
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/twilio/twilio-go/client"
	"github.com/twilio/twilio-go/twiml"
)

const (
	largestForm = 64 << 10
	// Twilio waits 15 seconds for the TwiML.
	patience = 10 * time.Second
)

type webhook struct {
	// The URL that Twilio signs is the one it was given, not what a proxy makes of it on the way here.
	url       string
	validator client.RequestValidator
	connector *lksdk.ConnectorClient
	agentName string
}

func main() {
	hook := &webhook{
		url:       strings.TrimRight(setting("PUBLIC_URL"), "/") + "/voice",
		validator: client.NewRequestValidator(setting("TWILIO_AUTH_TOKEN")),
		connector: lksdk.NewConnectorClient(
			setting("LIVEKIT_URL"), setting("LIVEKIT_API_KEY"), setting("LIVEKIT_API_SECRET")),
		agentName: os.Getenv("AGENT_NAME"),
	}
	http.HandleFunc("POST /voice", hook.voice)
	address := net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "3000"))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal("webhook: ", err)
	}
	log.Printf("listening on http://%s, Twilio asks %s", address, hook.url)
	server := &http.Server{ReadTimeout: patience}
	log.Fatal(server.Serve(listener))
}

func setting(name string) string {
	value := os.Getenv(name)
	if value == "" {
		log.Fatalf("webhook: set %s (see README.md)", name)
	}
	return value
}

func (h *webhook) voice(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, largestForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "this is not a form of Twilio", http.StatusBadRequest)
		return
	}
	form := map[string]string{}
	for name := range r.PostForm {
		form[name] = r.PostForm.Get(name)
	}
	if !h.validator.Validate(h.url, form, r.Header.Get("X-Twilio-Signature")) {
		http.Error(w, "the signature does not match", http.StatusForbidden)
		return
	}
	if form["CallSid"] == "" || form["From"] == "" {
		http.Error(w, "this is not about a call", http.StatusBadRequest)
		return
	}
	document, err := h.connect(r.Context(), form["CallSid"], form["From"])
	if err != nil {
		// Whatever went wrong, somebody is on the phone and has to be told.
		log.Printf("call %s cannot be connected: %v", form["CallSid"], err)
		document, err = apology()
	}
	if err != nil {
		http.Error(w, "no TwiML", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	_, _ = w.Write([]byte(document))
}

func (h *webhook) connect(ctx context.Context, callSid, from string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var agents []*livekit.RoomAgentDispatch
	if h.agentName != "" {
		agents = []*livekit.RoomAgentDispatch{{AgentName: h.agentName}}
	}
	response, err := h.connector.ConnectTwilioCall(ctx, &livekit.ConnectTwilioCallRequest{
		TwilioCallDirection: livekit.ConnectTwilioCallRequest_TWILIO_CALL_DIRECTION_INBOUND,
		RoomName:            "call-" + callSid,
		ParticipantIdentity: from,
		ParticipantName:     from,
		Agents:              agents,
	})
	if err != nil {
		return "", err
	}
	return twiml.Voice([]twiml.Element{
		&twiml.VoiceSay{Message: "This is LiveKit Twilio Connector."},
		&twiml.VoiceConnect{InnerElements: []twiml.Element{&twiml.VoiceStream{Url: response.ConnectUrl}}},
		// When the stream has ended, the connector tells Twilio how the call goes on: stream again, or hang up.
		&twiml.VoiceRedirect{Url: "http" + strings.TrimPrefix(response.ConnectUrl, "ws") + "/resume", Method: "POST"},
	})
}

func apology() (string, error) {
	return twiml.Voice([]twiml.Element{
		&twiml.VoiceSay{
			Message: "We are sorry, this call cannot be connected right now. Please try again later.",
		},
		&twiml.VoiceHangup{},
	})
}
