// Asks a livekit-server what livekit-sip asks it of an INVITE, over the Redis that the two share, and prints the
// answers as one line of JSON. livekit-sip itself is not needed: its questions are these two, and the answers decide
// who may come in and where to.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/rpc"
	"github.com/livekit/psrpc"
	"github.com/redis/go-redis/v9"
)

const tries = 5

type answer struct {
	Trunk      string            `json:"trunk"`
	Username   string            `json:"username"`
	Password   string            `json:"password"`
	Result     string            `json:"result"`
	Room       string            `json:"room"`
	Identity   string            `json:"identity"`
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes"`
	Agents     []string          `json:"agents"`
	Error      string            `json:"error"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: livekit-sip REDIS_HOST:PORT CALLER CALLED")
		os.Exit(2)
	}
	var said answer
	for range tries {
		// On a busy machine a question can be out before its answer's channel is subscribed to.
		if said = ask(os.Args[1], os.Args[2], os.Args[3]); said.Error == "" {
			break
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		panic(err)
	}
}

func ask(address, caller, called string) answer {
	client := redis.NewClient(&redis.Options{Addr: address})
	defer client.Close()
	server, err := rpc.NewIOInfoClient(psrpc.NewRedisMessageBus(client))
	if err != nil {
		return answer{Error: err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	call := &rpc.SIPCall{
		LkCallId: "SCL_conformance",
		SourceIp: "127.0.0.1",
		Address:  &livekit.SIPUri{User: called, Host: "127.0.0.1"},
		From:     &livekit.SIPUri{User: caller, Host: "pstn.twilio.com"},
		To:       &livekit.SIPUri{User: called, Host: "127.0.0.1"},
	}
	auth, err := server.GetSIPTrunkAuthentication(ctx, &rpc.GetSIPTrunkAuthenticationRequest{Call: call})
	if err != nil {
		return answer{Error: err.Error()}
	}
	said := answer{Trunk: auth.SipTrunkId, Username: auth.Username, Password: auth.Password}
	dispatch, err := server.EvaluateSIPDispatchRules(ctx, &rpc.EvaluateSIPDispatchRulesRequest{
		SipTrunkId:    auth.SipTrunkId,
		CallingNumber: caller,
		CalledNumber:  called,
		SrcAddress:    "127.0.0.1",
		Call:          call,
	})
	if err != nil {
		said.Error = err.Error()
		return said
	}
	said.Result, said.Room = dispatch.Result.String(), dispatch.RoomName
	said.Identity, said.Name = dispatch.ParticipantIdentity, dispatch.ParticipantName
	said.Attributes = dispatch.ParticipantAttributes
	for _, agent := range dispatch.RoomConfig.GetAgents() {
		said.Agents = append(said.Agents, agent.AgentName)
	}
	return said
}
