package certsvc_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/simulator"
)

// TestOneBodyForEveryEra sends the same body to both eras of the service.
func TestOneBodyForEveryEra(t *testing.T) {
	t.Parallel()
	for _, era := range []simulator.Era{simulator.Era100, simulator.Era390} {
		t.Run(string(era), func(t *testing.T) {
			t.Parallel()
			p, err := simulator.Start(simulator.Config{Era: era})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, p.Close()) })
			client := newClient(t, p.URLs().CertService, "https://dev.sunbirded.org/certs")

			r := request()
			r.Template.HTMLTemplate = p.URLs().Files + simulator.TemplatePath
			r.Recipient.FirstName = "आशा <&>"
			first, err := client.Generate(t.Context(), r)
			require.NoError(t, err)
			var assertion struct {
				IssuedOn  string `json:"issuedOn"`
				Recipient struct {
					Name string `json:"name"`
				} `json:"recipient"`
				Signature json.RawMessage `json:"signature"`
			}
			require.NoError(t, json.Unmarshal(first.JSONData, &assertion))
			assert.Equal(t, "2019-08-21T00:00:00Z", assertion.IssuedOn)
			assert.Equal(t, "आशा <&> Rao", assertion.Recipient.Name)
			assert.NotEmpty(t, assertion.Signature)

			second, err := client.Generate(t.Context(), r)
			require.NoError(t, err)
			assert.NotEqual(t, first.ID, second.ID, "every call makes another certificate")

			nameless := r
			nameless.Recipient.FirstName, nameless.Recipient.LastName = "", ""
			_, err = client.Generate(t.Context(), nameless)
			failure := issue.AsFailure(err)
			assert.Equal(t, issue.ReasonBadRequest, failure.Reason)
			assert.Equal(t, issue.Permanent, failure.Verdict)

			p.SetFault(simulator.Fault{Service: simulator.CertService, Operation: "generate", LoseReply: true, Times: 1})
			_, err = client.Generate(t.Context(), r)
			failure = issue.AsFailure(err)
			assert.Equal(t, issue.ReasonTimeout, failure.Reason)
			assert.Equal(t, issue.Transient, failure.Verdict)

			p.SetFault(simulator.Fault{Service: simulator.CertService, Outage: true})
			_, err = client.Generate(t.Context(), r)
			assert.Equal(t, issue.Outage, issue.AsFailure(err).Verdict)
		})
	}
}
