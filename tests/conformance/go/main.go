// ConnectTwilioCall with LiveKit's Go SDK; see ../README.md for how it is called.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/twitchtv/twirp"
)

type failure struct {
	Code    *twirp.ErrorCode `json:"code"`
	Message string           `json:"message"`
	Status  *int             `json:"status"`
}

type result struct {
	ConnectURL string   `json:"connect_url,omitempty"`
	Error      *failure `json:"error,omitempty"`
}

func main() {
	scenario := os.Args[1]
	response, err := client(scenario).ConnectTwilioCall(context.Background(), request(scenario, os.Args[2:]))
	out := result{ConnectURL: response.GetConnectUrl()}
	if err != nil {
		out.Error = describe(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}

func client(scenario string) *lksdk.ConnectorClient {
	url, key, secret := os.Getenv("LIVEKIT_URL"), os.Getenv("LIVEKIT_API_KEY"), os.Getenv("LIVEKIT_API_SECRET")
	if scenario != "without-grant" {
		return lksdk.NewConnectorClient(url, key, secret)
	}
	return lksdk.NewConnectorClient(url, key, secret, twirp.WithClientHooks(&twirp.ClientHooks{
		RequestPrepared: func(ctx context.Context, request *http.Request) (context.Context, error) {
			grant := &auth.VideoGrant{RoomList: true}
			token, err := auth.NewAccessToken(key, secret).SetVideoGrant(grant).ToJWT()
			request.Header.Set("Authorization", "Bearer "+token)
			return ctx, err
		},
	}))
}

func request(scenario string, pairs []string) *livekit.ConnectTwilioCallRequest {
	values, attributes := map[string]string{}, map[string]string{}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		if name, ok := strings.CutPrefix(key, "attribute."); ok {
			attributes[name] = value
		} else {
			values[key] = value
		}
	}
	direction := livekit.ConnectTwilioCallRequest_TWILIO_CALL_DIRECTION_OUTBOUND
	if scenario == "inbound" {
		direction = livekit.ConnectTwilioCallRequest_TWILIO_CALL_DIRECTION_INBOUND
	}
	var agents []*livekit.RoomAgentDispatch
	if agent, ok := values["agent"]; ok {
		agents = []*livekit.RoomAgentDispatch{{AgentName: agent, Metadata: values["agent.metadata"]}}
	}
	return &livekit.ConnectTwilioCallRequest{
		TwilioCallDirection:   direction,
		RoomName:              values["room"],
		DestinationCountry:    values["country"],
		ParticipantIdentity:   values["identity"],
		ParticipantName:       values["name"],
		ParticipantMetadata:   values["metadata"],
		ParticipantAttributes: attributes,
		Agents:                agents,
	}
}

func describe(err error) *failure {
	var refused twirp.Error
	if errors.As(err, &refused) {
		code := refused.Code()
		return &failure{Code: &code, Message: refused.Msg()}
	}
	return &failure{Message: err.Error()}
}
