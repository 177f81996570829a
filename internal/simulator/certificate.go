package simulator

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// design is what the certificates of one request, and as a rule of one whole batch, have in common. Certificates of a
// design share it, so that half a million of them fit in memory.
type design struct {
	Number      int         `json:"number"`
	Era         Era         `json:"era"`
	Name        string      `json:"name"`
	CourseName  string      `json:"courseName,omitempty"`
	Description string      `json:"description,omitempty"`
	Tag         string      `json:"tag,omitempty"`
	OrgID       string      `json:"orgId,omitempty"`
	Base        string      `json:"base"`
	KeyID       string      `json:"keyId,omitempty"`
	Narrative   string      `json:"narrative,omitempty"`
	Preview     bool        `json:"preview,omitempty"`
	Issuer      Issuer      `json:"issuer"`
	Signatories []Signatory `json:"signatories"`
}

// key tells designs apart.
func (d *design) key() string {
	parts := []string{
		string(d.Era), d.Name, d.CourseName, d.Description, d.Tag, d.OrgID, d.Base, d.KeyID, d.Narrative,
		strconv.FormatBool(d.Preview), d.Issuer.Name, d.Issuer.URL, strings.Join(d.Issuer.PublicKey, "\x01"),
	}
	for _, s := range d.Signatories {
		parts = append(parts, s.ID, s.Designation, s.Image)
	}
	return strings.Join(parts, "\x00")
}

// folder is where the objects of the design lie below the base: <orgId>/<tag> in 1.0.0, <tag> later.
func (d *design) folder() string {
	if d.Era == Era100 {
		return d.OrgID + "/" + d.Tag
	}
	return d.Tag
}

func (d *design) path(name string) string {
	if folder := d.folder(); folder != "" {
		return folder + "/" + name
	}
	return name
}

// certificate is one issued certificate.
type certificate struct {
	ID            string  `json:"id"`
	PDFID         string  `json:"pdfId,omitempty"` // empty: the same as ID
	AccessCode    string  `json:"accessCode"`
	RecipientName string  `json:"recipientName"`
	RecipientID   *string `json:"recipientId,omitempty"`
	IssuedOn      string  `json:"issuedOn"`
	Expires       string  `json:"expires,omitempty"`
	ValidFrom     string  `json:"validFrom,omitempty"`
	Created       string  `json:"created,omitempty"`
	Signature     string  `json:"signature,omitempty"`
	Design        int     `json:"design"`

	design *design
}

func (c *certificate) pdfID() string {
	if c.PDFID != "" {
		return c.PDFID
	}
	return c.ID
}

// pdfURL and jsonURL are as the era writes them: relative to the container in 1.0.0, absolute later. A preview of
// 3.9.0 has the malformed address of the running service.
func (c *certificate) pdfURL() string { return c.fileURL(c.pdfID() + ".pdf") }

func (c *certificate) jsonURL() string {
	if c.design.Preview && c.design.Era == Era390 {
		root := c.design.Base
		if i := strings.LastIndexByte(root, '/'); i > len("https://") {
			root = root[:i]
		}
		return c.design.Base + root + "/assets/" + c.ID + ".json"
	}
	return c.fileURL(c.ID + ".json")
}

func (c *certificate) fileURL(name string) string {
	if c.design.Era == Era100 {
		return c.design.path(name)
	}
	return c.design.Base + "/" + c.design.path(name)
}

// publicURL is the address printed into the QR code: where the assertion can be read.
func (c *certificate) publicURL() string { return c.design.Base + "/" + c.design.path(c.ID+".json") }

// certStore holds what was issued.
type certStore struct {
	mu      sync.RWMutex
	base    string
	designs map[string]*design
	byFile  map[string]*certificate // by id, and by the id of the PDF where that is another
}

func newCertStore(base string) *certStore {
	return &certStore{base: base, designs: map[string]*design{}, byFile: map[string]*certificate{}}
}

func (s *certStore) setBase(base string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = base
}

func (s *certStore) defaultBase() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.base
}

// intern gives the design that is kept for d. A new one is told to made before anybody else can get hold of it, so
// that the journal has it before its first certificate.
func (s *certStore) intern(d design, made func(*design)) *design {
	key := d.key()
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.designs[key]; have != nil {
		return have
	}
	if d.Number == 0 {
		d.Number = len(s.designs) + 1
	}
	s.designs[key] = &d
	made(&d)
	return &d
}

func (s *certStore) add(c *certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byFile[c.ID] = c
	if c.PDFID != "" {
		s.byFile[c.PDFID] = c
	}
}

// byPath finds the certificate a path or address ends in: …/<id>.pdf or …/<id>.json.
func (s *certStore) byPath(path string) *certificate {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		name = name[:dot]
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byFile[name]
}

func newID() string { return uuid.Must(uuid.NewRandomFromReader(rand.Reader)).String() }

const (
	codeLetters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
	codeDigits  = "123456789"
)

// newAccessCode is letter-digit three times; like the real one it is neither unique nor a secret.
func newAccessCode() string {
	code := make([]byte, 0, 6)
	for range 3 {
		code = append(code, codeLetters[mathrand.IntN(len(codeLetters))], codeDigits[mathrand.IntN(len(codeDigits))])
	}
	return string(code)
}

func javaInstant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }
