package simulator

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Service names one of the simulated services.
type Service string

// The services of a platform.
const (
	CertService    Service = "cert"
	LearnerService Service = "learner"
	ContentService Service = "content"
	Elasticsearch  Service = "elasticsearch"
	Files          Service = "files"
)

// Era is the release of cert-service that is simulated.
type Era string

// The eras of cert-service.
const (
	Era100 Era = "1.0.0" // platform 2.3.5
	Era390 Era = "3.9.0"
)

// Ports are the ports of the services; 0 takes a free one.
type Ports struct {
	Cert, Learner, Content, Elasticsearch, Files int
}

// URLs are the base addresses of the services, without a trailing slash.
type URLs struct {
	CertService    string
	LearnerService string
	ContentService string // what stands before /content/v3/read/
	Elasticsearch  string
	Files          string
}

// Config says how a platform is set up. The zero value serves the 2.3.5 platform on free ports of 127.0.0.1.
type Config struct {
	Era   Era    // default 1.0.0
	Host  string // default 127.0.0.1
	Ports Ports
	// DataDir keeps issued certificates, registered rows and accepted messages across restarts; "" keeps them in
	// memory only.
	DataDir string
	Log     *zap.Logger
	// KeepBodies stores the request body with each call of the log.
	KeepBodies bool
	// CallLogLimit is how many calls the log holds (default 500,000; the older half is dropped when it is full).
	CallLogLimit int
	// LearnerEra25 makes certs/add honour oldId, as platforms from 2.5 on do; 2.3.5 ignores it.
	LearnerEra25 bool
	// CertBase is the public address of certificates where a request brings none (basePath); it is the
	// sunbird_cert_domain_url and slug of the real service. Default: the files server's /certs.
	CertBase string
	// IdleTimeout is after how long cert-service 3.9.0 drops a connection it has not answered (default 75 s).
	IdleTimeout time.Duration
	// EmailTemplates are the stored e-mail templates beside defaultCertTemp.
	EmailTemplates []string
}

func (c Config) withDefaults() (Config, error) {
	if c.Era == "" {
		c.Era = Era100
	}
	if c.Era != Era100 && c.Era != Era390 {
		return c, fmt.Errorf("era %q: want %s or %s", c.Era, Era100, Era390)
	}
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.CallLogLimit <= 0 {
		c.CallLogLimit = 500_000
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 75 * time.Second
	}
	return c, nil
}

// Platform is a running simulated platform. Its methods may be called from any goroutine.
type Platform struct {
	cfg     Config
	log     *zap.Logger
	calls   *callLog
	faults  *faultSet
	journal *journal
	servers []*server

	certs      *certStore
	keys       *keyring
	templates  *templateChecker
	users      *userStore
	registry   *registry
	outbox     *outbox
	content    *contentStore
	search     *searchStore
	printQueue *printQueue

	stop     chan struct{}
	mu       sync.Mutex
	closed   bool
	inFlight sync.WaitGroup
}

// Start listens on every address first, so that a taken port is an error at once, and then serves.
func Start(cfg Config) (*Platform, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start simulated platform: %w", err)
	}
	p := newPlatform(cfg)
	if err := p.restore(); err != nil {
		return nil, fmt.Errorf("start simulated platform: %w", err)
	}
	for _, s := range p.servers {
		if err := s.up(); err != nil {
			return nil, errors.Join(fmt.Errorf("start simulated platform: %w", err), p.Close())
		}
	}
	if p.cfg.CertBase == "" {
		p.certs.setBase(p.URLs().Files + "/certs")
	}
	return p, nil
}

func newPlatform(cfg Config) *Platform {
	stop := make(chan struct{})
	p := &Platform{
		cfg: cfg, log: cfg.Log, stop: stop,
		calls:      newCallLog(cfg.CallLogLimit),
		faults:     &faultSet{stop: stop, errorBody: errorBody},
		certs:      newCertStore(cfg.CertBase),
		keys:       newKeyring(),
		templates:  newTemplateChecker(stop),
		users:      newUserStore(),
		registry:   newRegistry(cfg.LearnerEra25),
		outbox:     newOutbox(cfg.EmailTemplates),
		content:    newContentStore(),
		search:     newSearchStore(),
		printQueue: newPrintQueue(cfg.IdleTimeout, stop),
	}
	add := func(service Service, port int, find routeFinder) {
		s := &server{service: service, log: cfg.Log, addr: net.JoinHostPort(cfg.Host, strconv.Itoa(port))}
		s.handler = p.handler(service, find)
		p.servers = append(p.servers, s)
	}
	add(CertService, cfg.Ports.Cert, p.certRoute)
	add(LearnerService, cfg.Ports.Learner, p.learnerRoute)
	add(ContentService, cfg.Ports.Content, p.contentRoute)
	add(Elasticsearch, cfg.Ports.Elasticsearch, p.elasticRoute)
	add(Files, cfg.Ports.Files, p.filesRoute)
	files := p.servers[len(p.servers)-1]
	files.handler = p.withControl(files.handler)
	return p
}

// URLs are where the services listen.
func (p *Platform) URLs() URLs {
	return URLs{
		CertService: p.servers[0].url(), LearnerService: p.servers[1].url(), ContentService: p.servers[2].url(),
		Elasticsearch: p.servers[3].url(), Files: p.servers[4].url(),
	}
}

// Load adds the data, replacing what has the same id.
func (p *Platform) Load(d Dataset) error {
	if err := p.content.load(d.Courses); err != nil {
		return fmt.Errorf("load courses: %w", err)
	}
	p.users.load(d.Organisations, d.Users)
	p.search.load(d.Batches, d.Enrolments)
	return nil
}

// Close stops every service, waits for the calls being worked, and closes the journal.
func (p *Platform) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	close(p.stop)
	for _, s := range p.servers {
		s.close()
	}
	p.inFlight.Wait()
	p.templates.client.CloseIdleConnections()
	if err := p.journal.close(); err != nil {
		return fmt.Errorf("close simulated platform: %w", err)
	}
	return nil
}

// enter counts a call in, unless the platform is closing: a WaitGroup must not grow while it is waited for.
func (p *Platform) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.inFlight.Add(1)
	return true
}

func (p *Platform) leave() { p.inFlight.Done() }

func zapService(s Service) zap.Field { return zap.String("service", string(s)) }
func zapErr(err error) zap.Field     { return zap.Error(err) }
