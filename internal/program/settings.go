package program

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/ecreds/issuer/internal/ledger"
)

// Kafka holds the settings of everything that talks to Kafka.
type Kafka struct {
	Brokers         []string `name:"kafka-brokers" env:"KAFKA_BROKERS,kafka_urls" required:"" placeholder:"HOST:PORT" help:"Kafka brokers to begin with, separated by commas."`
	TLS             bool     `name:"kafka-tls" env:"KAFKA_TLS" help:"Speak TLS with the brokers."`
	CAFile          string   `name:"kafka-ca-file" env:"KAFKA_CA_FILE" placeholder:"FILE" help:"Authorities (PEM) that vouch for the brokers; by default those of the system."`
	CertFile        string   `name:"kafka-cert-file" env:"KAFKA_CERT_FILE" placeholder:"FILE" help:"Our own certificate (PEM), for brokers that ask for one."`
	KeyFile         string   `name:"kafka-key-file" env:"KAFKA_KEY_FILE" placeholder:"FILE" help:"The key (PEM) of that certificate."`
	SASLMechanism   string   `name:"kafka-sasl-mechanism" env:"KAFKA_SASL_MECHANISM" enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" default:"" placeholder:"NAME" help:"How we prove who we are: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; by default not at all."`
	Username        string   `name:"kafka-username" env:"KAFKA_USERNAME" placeholder:"NAME" help:"User name for the brokers."`
	Password        string   `name:"kafka-password" env:"KAFKA_PASSWORD" secret:"" placeholder:"SECRET" help:"Password for the brokers; better in the file that KAFKA_PASSWORD_FILE names."`
	SASLWithoutTLS  bool     `name:"kafka-sasl-without-tls" env:"KAFKA_SASL_WITHOUT_TLS" help:"Send credentials without TLS, over a network that nobody else can read."`
	TopicPrefix     string   `env:"TOPIC_PREFIX,sunbird_installation" default:"local" help:"First part of every topic name and of the consumer group's name."`
	Group           string   `name:"kafka-group" env:"KAFKA_GROUP" placeholder:"NAME" help:"Consumer group of cert-consumer; by default <TOPIC_PREFIX>-cert-consumer."`
	TopicsCreate    bool     `env:"TOPICS_CREATE" help:"Create missing topics at start; otherwise a missing topic is an error."`
	TopicPartitions int      `env:"TOPIC_PARTITIONS" default:"6" help:"Partitions of a topic that is created."`
}

// ConsumerGroup is the group in which cert-consumer works requests.
func (k Kafka) ConsumerGroup() string {
	if k.Group != "" {
		return k.Group
	}
	return k.TopicPrefix + "-cert-consumer"
}

// RequestTopic is where certificate requests travel.
func (k Kafka) RequestTopic() string { return k.TopicPrefix + ".coursebatch.certificate.request" }

// DeadLetterTopic is where requests end that cannot succeed.
func (k Kafka) DeadLetterTopic() string { return k.TopicPrefix + ".coursebatch.certificate.failed" }

// Validate refuses what makes no sense.
func (k Kafka) Validate() error {
	for _, broker := range k.Brokers {
		if _, port, err := net.SplitHostPort(broker); err != nil || port == "" {
			return Refuse("KAFKA_BROKERS", "%q is not host:port", broker)
		}
	}
	if strings.Trim(k.TopicPrefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || k.TopicPrefix == "" {
		return Refuse("TOPIC_PREFIX", "%q must be letters, digits, dot, dash or underscore", k.TopicPrefix)
	}
	if err := AtLeast("TOPIC_PARTITIONS", k.TopicPartitions, 1); err != nil {
		return err
	}
	_, err := k.connection("")
	return err
}

// Ledger holds the settings of the ledger.
type Ledger struct {
	DatabaseURL string        `env:"DATABASE_URL" default:"sqlite:ecreds.db" secret:"" placeholder:"URL" help:"The ledger: postgres://<user>:<password>@<host>:<port>/<database>, or sqlite:<path>, a file on a local disk for one API and one consumer on one machine. It is bound to the TOPIC_PREFIX that first opened it. [sqlite:ecreds.db]"`
	Migrate     bool          `env:"MIGRATE" help:"Bring the ledger's schema up to date at start; otherwise an older schema is an error."`
	ClaimLapse  time.Duration `env:"CLAIM_LAPSE" default:"15s" help:"A consumer silent for longer is dead, and others take over what it was working."`
}

// Validate refuses what makes no sense.
func (l Ledger) Validate() error {
	if !ledger.IsURL(l.DatabaseURL) {
		return Refuse("DATABASE_URL", "it must be postgres://<user>:<password>@<host>:<port>/<database> or sqlite:<path of a file>")
	}
	if l.ClaimLapse < time.Second {
		return Refuse("CLAIM_LAPSE", "%v is too short: at least 1s", l.ClaimLapse)
	}
	return nil
}

// Log holds the settings of the log.
type Log struct {
	Level  string `name:"log-level" env:"LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Least severe lines that are logged: ${enum}."`
	Format string `name:"log-format" env:"LOG_FORMAT" default:"json" enum:"json,console" help:"Form of the log: ${enum}."`
}

// Enrolments holds the settings of the enrolment source.
type Enrolments struct {
	EnrolmentSource  string `env:"ENROLMENT_SOURCE" default:"elasticsearch" enum:"elasticsearch" help:"Where enrolments are read: ${enum}."`
	ElasticsearchURL string `env:"ELASTICSEARCH_URL" required:"" placeholder:"URL" help:"Elasticsearch with the indexes user-courses and course-batch."`
}

// Validate refuses what makes no sense.
func (e Enrolments) Validate() error { return CheckURL("ELASTICSEARCH_URL", e.ElasticsearchURL) }

// Content holds the settings of the content service.
type Content struct {
	ContentServiceURL string `env:"CONTENT_SERVICE_URL" required:"" placeholder:"URL" help:"Content service: what stands before /content/v3/read/."`
}

// Validate refuses what makes no sense.
func (c Content) Validate() error { return CheckURL("CONTENT_SERVICE_URL", c.ContentServiceURL) }

// CheckURL refuses what is no absolute http address.
func CheckURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return Refuse(name, "it must be an absolute http or https address")
	}
	return nil
}

// AtLeast refuses a number below least, by the setting's name.
func AtLeast(name string, value, least int) error {
	if value < least {
		return Refuse(name, "%d is too small: at least %d", value, least)
	}
	return nil
}

// Refuse is the error of a setting that makes no sense; it names the setting as
// variable and as flag.
func Refuse(name, format string, args ...any) error {
	flag := "--" + strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	return fmt.Errorf("%s (%s): %s", name, flag, fmt.Sprintf(format, args...))
}

// Vars are named values for help texts and defaults.
type Vars map[string]string

// ErrHelp says that help was asked for and shown.
var ErrHelp = errors.New("help was shown")

// Parse reads settings from flags, then the environment, then defaults. A
// setting marked secret may be given as a file by its name with _FILE. Vars
// are values that help texts and defaults refer to.
func Parse(name, description string, config any, args []string, stdout, stderr io.Writer, vars ...Vars) error {
	helped := false
	values := kong.Vars{}
	for _, v := range vars {
		values = values.CloneWith(kong.Vars(v))
	}
	parser, err := kong.New(config, values, kong.Name(name), kong.Description(description), kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), kong.Resolvers(kong.ResolverFunc(secretFile)))
	if err != nil {
		return err
	}
	_, err = parser.Parse(args)
	if helped {
		return ErrHelp
	}
	return err
}

// secretFile reads a secret setting from the file that NAME_FILE names.
func secretFile(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !flag.Tag.Has("secret") || len(flag.Envs) == 0 {
		return nil, nil //nolint:nilnil // kong's way to say "not resolved here"
	}
	name := flag.Envs[0] + "_FILE"
	path := os.Getenv(name)
	if path == "" {
		return nil, nil //nolint:nilnil // as above
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, Refuse(name, "%v", err)
	}
	return strings.TrimSpace(string(content)), nil
}
