package app

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

var required = []string{
	"--kafka-brokers=a:1", "--elasticsearch-url=http://es:9200", "--content-service-url=http://content:9000",
}

// TestListeningBeyondLoopbackNeedsAnAnswer: whoever opens the door to others
// must have said who may come in.
func TestListeningBeyondLoopbackNeedsAnAnswer(t *testing.T) {
	_, err := ParseConfig(required, io.Discard, io.Discard)
	require.ErrorContains(t, err, "AUTH_MODE")
	for _, args := range [][]string{{"--auth-mode=off"}, {"--http-addr=127.0.0.1:9000"}} {
		_, err := ParseConfig(append(args, required...), io.Discard, io.Discard)
		require.NoError(t, err, "%v", args)
	}
	_, err = ParseConfig(append([]string{"--auth-mode=password"}, required...), io.Discard, io.Discard)
	require.ErrorContains(t, err, "auth-mode")
}

func TestSettingsWithoutSenseAreRefusedByName(t *testing.T) {
	for arg, says := range map[string]string{
		"--publish-ahead=-1":            "PUBLISH_AHEAD",
		"--max-body-bytes=0":            "MAX_BODY_BYTES",
		"--content-service-url=content": "CONTENT_SERVICE_URL",
		"--learner-service-url=learner": "LEARNER_SERVICE_URL",
	} {
		_, err := ParseConfig(append(append([]string{"--auth-mode=off"}, required...), arg), io.Discard, io.Discard)
		require.ErrorContains(t, err, says)
	}
}
