package app

import (
	"io"

	"github.com/ecreds/issuer/internal/program"
)

// Config holds the settings of issuer-api.
type Config struct {
	program.Kafka      `group:"Kafka:"`
	program.Ledger     `group:"Ledger:"`
	program.Enrolments `group:"Sunbird services:"`
	program.Content    `group:"Sunbird services:"`
	program.Log        `group:"Log:"`

	LearnerServiceURL string `env:"LEARNER_SERVICE_URL,sunbird_user_service_api_base_url" group:"Sunbird services:" placeholder:"URL" help:"Learner service, where reconciling validates certificates; without it they are told as unchecked."`

	HTTPAddr string `name:"http-addr" env:"HTTP_ADDR" default:":9000" help:"Address to listen on."`
	// HTTPAddrSetting is the setting that chose HTTPAddr, to be named when it is
	// taken.
	HTTPAddrSetting string `kong:"-"`
	AuthMode        string `env:"AUTH_MODE" enum:",off" default:"" placeholder:"off" help:"How callers are authenticated: off. Must be set to listen beyond loopback."`
	PublishAhead    int    `env:"PUBLISH_AHEAD" default:"10000" help:"Events of one job in Kafka at once; 0 = no limit."`
	MaxBodyBytes    int64  `env:"MAX_BODY_BYTES" default:"1048576" help:"Largest request body, in bytes."`
}

// ParseConfig reads the settings from flags and environment.
func ParseConfig(args []string, stdout, stderr io.Writer) (Config, error) {
	config := Config{HTTPAddrSetting: "HTTP_ADDR"}
	err := program.Parse("issuer-api",
		"Accepts requests to issue the certificates of a course batch and dispatches them.", &config, args, stdout, stderr)
	return config, err
}

// Validate refuses what makes no sense.
func (c Config) Validate() error {
	if c.AuthMode == "" && !program.OnLoopback(c.HTTPAddr) {
		return program.Refuse("AUTH_MODE", "it must be set to listen on %s, which others can reach "+
			"(off = whoever can reach it may issue certificates)", c.HTTPAddr)
	}
	if c.LearnerServiceURL != "" {
		if err := program.CheckURL("LEARNER_SERVICE_URL", c.LearnerServiceURL); err != nil {
			return err
		}
	}
	if err := program.AtLeast("PUBLISH_AHEAD", c.PublishAhead, 0); err != nil {
		return err
	}
	return program.AtLeast("MAX_BODY_BYTES", int(c.MaxBodyBytes), 1)
}
