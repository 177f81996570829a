package app

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// required are the settings without a default.
var required = []string{
	"--kafka-brokers=a:1", "--elasticsearch-url=http://es:9200", "--content-service-url=http://content:9000",
	"--cert-service-url=http://cert:9000", "--learner-service-url=http://learner:9000",
}

func TestDefaultsFollowFromOtherSettings(t *testing.T) {
	config, err := ParseConfig(append([]string{"--topic-prefix=sunbirddev"}, required...), io.Discard, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "sunbirddev-cert-consumer", config.ConsumerGroup())
	require.Equal(t, "http://learner:9000", config.NotifierURL)
	require.Equal(t, []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour}, config.RetryDelays)
	require.Equal(t, 256, config.Concurrency)
}

func TestSettingsWithoutSenseAreRefusedByName(t *testing.T) {
	for name, c := range map[string]struct{ arg, says string }{
		"concurrency":   {"--concurrency=0", "CONCURRENCY"},
		"attempts":      {"--step-attempts=0", "STEP_ATTEMPTS"},
		"retry delays":  {"--retry-delays=30s,-1s", "RETRY_DELAYS"},
		"address":       {"--cert-service-url=cert:9000", "CERT_SERVICE_URL"},
		"zone":          {"--time-zone=Mars/Olympus", "TIME_ZONE"},
		"session":       {"--kafka-session-timeout=1s", "KAFKA_SESSION_TIMEOUT"},
		"timeout":       {"--cert-service-timeout=1ms", "CERT_SERVICE_TIMEOUT"},
		"drain":         {"--drain-timeout=0s", "DRAIN_TIMEOUT"},
		"crash limit":   {"--crash-limit=-1", "CRASH_LIMIT"},
		"doubt":         {"--notify-in-doubt=maybe", "notify-in-doubt"},
		"enrolments":    {"--enrolment-source=excel", "enrolment-source"},
		"elasticsearch": {"--elasticsearch-url=es", "ELASTICSEARCH_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig(append(append([]string{}, required...), c.arg), io.Discard, io.Discard)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
	for _, missing := range required {
		args := []string{}
		for _, r := range required {
			if r != missing {
				args = append(args, r)
			}
		}
		_, err := ParseConfig(args, io.Discard, io.Discard)
		require.Error(t, err, "without %s", missing)
	}
}

func TestHelpNamesEverySettingWithItsVariable(t *testing.T) {
	var out bytes.Buffer
	_, err := ParseConfig([]string{"--help"}, &out, io.Discard)
	require.Error(t, err)
	for _, name := range []string{
		"KAFKA_BROKERS", "KAFKA_GROUP", "TOPIC_PREFIX", "TOPICS_CREATE", "DATABASE_URL", "MIGRATE", "HTTP_ADDR", "LOG_LEVEL",
		"CERT_SERVICE_URL", "LEARNER_SERVICE_URL", "NOTIFIER_URL", "CONTENT_SERVICE_URL", "ELASTICSEARCH_URL", "CONCURRENCY",
		"STEP_ATTEMPTS", "RETRY_DELAYS", "DRAIN_TIMEOUT", "CLAIM_LAPSE", "CRASH_LIMIT", "NOTIFY_IN_DOUBT", "TIME_ZONE", "SMS_TEXT",
	} {
		require.Contains(t, out.String(), name)
	}
}
