package app

import (
	"io"
	"strings"
	"time"
	_ "time/tzdata" // TIME_ZONE must work in an image without zone files

	"github.com/ecreds/issuer/internal/program"
)

// Config holds the settings of cert-consumer.
type Config struct {
	program.Kafka      `group:"Kafka:"`
	program.Ledger     `group:"Ledger:"`
	program.Enrolments `group:"Sunbird services:"`
	program.Content    `group:"Sunbird services:"`
	program.Log        `group:"Log:"`

	KafkaSessionTimeout time.Duration `env:"KAFKA_SESSION_TIMEOUT" group:"Kafka:" default:"15s" help:"The group gives up a member that is silent for so long."`

	CertServiceURL     string        `env:"CERT_SERVICE_URL,sunbird_cert_service_base_url" group:"Sunbird services:" required:"" placeholder:"URL" help:"cert-service."`
	CertServiceTimeout time.Duration `env:"CERT_SERVICE_TIMEOUT" group:"Sunbird services:" default:"80s" help:"Longest wait for one certificate: longer than the 75 s after which cert-service hangs up."`
	CertBasePath       string        `env:"CERT_BASE_PATH" group:"Sunbird services:" placeholder:"URL" help:"What the addresses of a certificate's files begin with; by default as cert-service is set up."`
	LearnerServiceURL  string        `env:"LEARNER_SERVICE_URL,sunbird_user_service_api_base_url" group:"Sunbird services:" required:"" placeholder:"URL" help:"Learner service."`
	NotifierURL        string        `env:"NOTIFIER_URL" group:"Sunbird services:" placeholder:"URL" help:"Where e-mail and SMS are sent; by default the learner service."`

	HTTPAddr string `name:"http-addr" env:"HTTP_ADDR" default:":9001" help:"Address for health and metrics."`
	// HTTPAddrSetting is the setting that chose HTTPAddr, to be named when it is
	// taken.
	HTTPAddrSetting string          `kong:"-"`
	Concurrency     int             `env:"CONCURRENCY" group:"Work:" default:"256" help:"Events in flight in this process."`
	StepAttempts    int             `env:"STEP_ATTEMPTS" group:"Work:" default:"3" help:"Calls of a step in one go."`
	RetryDelays     []time.Duration `env:"RETRY_DELAYS" group:"Work:" default:"30s,5m,1h" help:"Waits before each later go of a step; then it is a dead letter."`
	DrainTimeout    time.Duration   `env:"DRAIN_TIMEOUT" group:"Work:" default:"85s" help:"For work in flight when the program stops: the longest call and 5 s."`
	CrashLimit      int             `env:"CRASH_LIMIT" group:"Work:" default:"3" help:"An event in flight at so many deaths of its process is a dead letter; 0 = never."`
	NotifyInDoubt   string          `env:"NOTIFY_IN_DOUBT" group:"Work:" default:"resend" enum:"resend,skip" help:"A notification that may have left when its process died: ${enum}."`
	TimeZone        string          `env:"TIME_ZONE" group:"Work:" default:"Asia/Kolkata" help:"Zone of the dates on certificates and in messages."`
	SMSText         string          `name:"sms-text" env:"SMS_TEXT" group:"Work:" placeholder:"TEXT" help:"Text of an SMS, with @@TRAINING_NAME@@ and @@HELD_DATE@@."`
}

// ParseConfig reads the settings from flags and environment.
func ParseConfig(args []string, stdout, stderr io.Writer) (Config, error) {
	config := Config{HTTPAddrSetting: "HTTP_ADDR"}
	err := program.Parse("cert-consumer",
		"Works certificate requests off Kafka: generates, registers and announces one certificate for each.",
		&config, args, stdout, stderr)
	return config.withDefaults(), err
}

// withDefaults fills in what follows from other settings.
func (c Config) withDefaults() Config {
	if c.NotifierURL == "" {
		c.NotifierURL = c.LearnerServiceURL
	}
	return c
}

// Validate refuses what makes no sense.
func (c Config) Validate() error {
	for _, u := range []struct{ name, url string }{
		{"CERT_SERVICE_URL", c.CertServiceURL},
		{"CERT_BASE_PATH", c.CertBasePath},
		{"LEARNER_SERVICE_URL", c.LearnerServiceURL},
		{"NOTIFIER_URL", c.NotifierURL},
	} {
		if u.url == "" {
			continue // required ones are asked for by name before this
		}
		if err := program.CheckURL(u.name, u.url); err != nil {
			return err
		}
	}
	for _, n := range []struct {
		name         string
		value, least int
	}{{"CONCURRENCY", c.Concurrency, 1}, {"STEP_ATTEMPTS", c.StepAttempts, 1}, {"CRASH_LIMIT", c.CrashLimit, 0}} {
		if err := program.AtLeast(n.name, n.value, n.least); err != nil {
			return err
		}
	}
	return c.validateTimes()
}

// minSession has room for two heartbeats. (Brokers want 6 s, unless they are set
// otherwise.)
const minSession = 2 * time.Second

func (c Config) validateTimes() error {
	for _, d := range []struct {
		name         string
		value, least time.Duration
	}{
		{"CERT_SERVICE_TIMEOUT", c.CertServiceTimeout, time.Second},
		{"KAFKA_SESSION_TIMEOUT", c.KafkaSessionTimeout, minSession},
		{"DRAIN_TIMEOUT", c.DrainTimeout, time.Second},
	} {
		if d.value < d.least {
			return program.Refuse(d.name, "%v is too short: at least %v", d.value, d.least)
		}
	}
	for _, delay := range c.RetryDelays {
		if delay <= 0 {
			return program.Refuse("RETRY_DELAYS", "%v is not a wait", delay)
		}
	}
	if strings.TrimSpace(c.TimeZone) == "" {
		return program.Refuse("TIME_ZONE", "it must name a zone, such as Asia/Kolkata")
	}
	if _, err := time.LoadLocation(c.TimeZone); err != nil {
		return program.Refuse("TIME_ZONE", "%q is no zone, such as Asia/Kolkata", c.TimeZone)
	}
	return nil
}
