package main

import (
	"io"
	"time"

	"github.com/ecreds/issuer/internal/program"
	"github.com/ecreds/issuer/internal/simulator"
)

// config holds the settings of ecreds-local. Everything listens on loopback.
type config struct {
	Once          bool          `help:"Exit after the summary; the exit code is 1 if anybody eligible was not issued."`
	DataDir       string        `env:"DATA_DIR" default:".ecreds" help:"Folder for broker, ledger, simulated platform and log; it survives a restart."`
	Batch         string        `env:"BATCH" default:"${batch}" help:"Seeded batch to issue; empty = none, just stay up."`
	Course        string        `env:"COURSE" default:"${course}" help:"Course of that batch."`
	Era           string        `env:"CERT_SERVICE_ERA" default:"1.0.0" enum:"1.0.0,3.9.0" help:"Release of cert-service that is simulated: ${enum}."`
	Latency       time.Duration `env:"LATENCY" default:"20ms" help:"How long each call of cert-service, learner service and notifier takes."`
	Concurrency   int           `env:"CONCURRENCY" default:"64" help:"Events in flight."`
	APIPort       int           `env:"API_PORT" default:"9000" help:"Port of issuer-api; 0 = any free one."`
	ConsumerPort  int           `env:"CONSUMER_PORT" default:"9001" help:"Port of cert-consumer's health and metrics; 0 = any free one."`
	KafkaPort     int           `env:"KAFKA_PORT" default:"9092" help:"Port of the embedded broker; 0 = any free one."`
	PlatformPorts int           `env:"PLATFORM_PORTS" default:"9010" help:"First of five ports of the simulated platform; 0 = any free ones."`
}

func parseConfig(args []string, stdout, stderr io.Writer) (config, error) {
	var c config
	err := program.Parse("ecreds-local",
		"eCreds Issuer on one machine: an embedded Kafka broker, a simulated Sunbird platform, issuer-api and cert-consumer.",
		&c, args, stdout, stderr, program.Vars{"batch": simulator.DemoBatch, "course": simulator.DemoCourse})
	return c, err
}

// Validate refuses what makes no sense.
func (c config) Validate() error {
	for _, n := range []struct {
		name         string
		value, least int
	}{
		{"CONCURRENCY", c.Concurrency, 1},
		{"API_PORT", c.APIPort, 0},
		{"CONSUMER_PORT", c.ConsumerPort, 0},
		{"KAFKA_PORT", c.KafkaPort, 0},
		{"PLATFORM_PORTS", c.PlatformPorts, 0},
	} {
		if err := program.AtLeast(n.name, n.value, n.least); err != nil {
			return err
		}
	}
	if c.Latency < 0 {
		return program.Refuse("LATENCY", "%v is not a duration of a call", c.Latency)
	}
	return nil
}

func (c config) platformPorts() simulator.Ports {
	first := c.PlatformPorts
	if first == 0 {
		return simulator.Ports{}
	}
	return simulator.Ports{Cert: first, Learner: first + 1, Content: first + 2, Elasticsearch: first + 3, Files: first + 4}
}
