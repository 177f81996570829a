package simulator

import "strings"

// assertion is the Open Badges document of a certificate, in the order the service writes its members.
type assertion struct {
	ID           string        `json:"id"`
	Type         []string      `json:"type"`
	IssuedOn     string        `json:"issuedOn"`
	Recipient    recipient     `json:"recipient"`
	Badge        badge         `json:"badge"`
	Evidence     *evidence     `json:"evidence,omitempty"`
	Expires      string        `json:"expires,omitempty"`
	Verification verification  `json:"verification"`
	Revoked      bool          `json:"revoked"`
	Signatory    []signatory   `json:"signatory"`
	ValidFrom    string        `json:"validFrom,omitempty"`
	Signature    *ldsSignature `json:"signature,omitempty"`
	Context      string        `json:"@context"`
}

type recipient struct {
	Identity *string  `json:"identity,omitempty"`
	Type     []string `json:"type"`
	Hashed   bool     `json:"hashed"`
	Name     string   `json:"name"`
	Context  string   `json:"@context"`
}

type badge struct {
	ID          string        `json:"id"`
	Type        []string      `json:"type"`
	Name        string        `json:"name"`
	Description string        `json:"description,omitempty"`
	Criteria    badgeCriteria `json:"criteria"`
	Issuer      badgeIssuer   `json:"issuer"`
	Context     string        `json:"@context"`
}

type badgeCriteria struct {
	Type      []string `json:"type"`
	ID        string   `json:"id,omitempty"`
	Narrative string   `json:"narrative,omitempty"`
}

type badgeIssuer struct {
	Context   string   `json:"context"`
	ID        string   `json:"id"`
	Type      []string `json:"type"`
	Name      string   `json:"name"`
	URL       string   `json:"url"`
	PublicKey []string `json:"publicKey,omitempty"`
}

type evidence struct {
	ID      string   `json:"id"`
	Type    []string `json:"type"`
	Name    string   `json:"name"`
	Context string   `json:"@context"`
}

type verification struct {
	Type    []string `json:"type"`
	Creator string   `json:"creator,omitempty"`
}

type signatory struct {
	Identity    string   `json:"identity"`
	Type        []string `json:"type"`
	Hashed      bool     `json:"hashed"`
	Designation string   `json:"designation"`
	Image       string   `json:"image"`
	Context     string   `json:"@context"`
}

type ldsSignature struct {
	Type           string `json:"type"`
	Creator        string `json:"creator"`
	Created        string `json:"created"`
	SignatureValue string `json:"signatureValue"`
}

var (
	assertionType = []string{"Assertion", "Extension", "extensions:CertificateExtension"}
	identityType  = []string{"id"}
	badgeType     = []string{"BadgeClass"}
	criteriaType  = []string{"Criteria"}
	issuerType    = []string{"Issuer"}
	evidenceType  = []string{"Evidence", "Extension", "extensions:TrainingEvidence"}
	signatoryType = []string{"Extension", "extensions:SignatoryExtension"}
	signedType    = []string{"SignedBadge"}
	hostedType    = []string{"hosted"}
)

// assertion builds the document. It is built anew whenever it is asked for, which costs less than keeping it.
func (c *certificate) assertion() *assertion {
	d := c.design
	context := d.Base + "/v1/context.json"
	a := &assertion{
		ID: d.Base + "/" + d.path(c.ID), Type: assertionType, IssuedOn: c.IssuedOn, Expires: c.Expires,
		ValidFrom: c.ValidFrom, Context: context,
		Recipient:    recipient{Identity: c.RecipientID, Type: identityType, Name: c.RecipientName, Context: context},
		Badge:        d.badge(context),
		Evidence:     d.evidence(context),
		Verification: d.verification(),
		Signatory:    d.signatories(),
	}
	if d.Era == Era100 {
		a.ID += ".json"
	}
	if c.Signature != "" {
		a.Signature = &ldsSignature{
			Type: "LinkedDataSignature2015", Creator: d.signatureCreator(), Created: c.Created, SignatureValue: c.Signature,
		}
	}
	return a
}

func (d *design) badge(context string) badge {
	b := badge{
		ID: d.Base + "/" + d.path("Badge.json"), Type: badgeType, Name: d.CourseName, Description: d.Description,
		Criteria: badgeCriteria{Type: criteriaType, Narrative: d.Narrative}, Context: context,
		Issuer: badgeIssuer{
			Context: context, ID: d.Base + "/Issuer.json", Type: issuerType,
			Name: d.Issuer.Name, URL: d.Issuer.URL, PublicKey: d.publicKeys(),
		},
	}
	if b.Name == "" {
		b.Name = d.Name
	}
	if d.Era == Era100 {
		b.Criteria.ID = d.Base + "/" + d.folder()
		b.Issuer.ID = d.Base + "/" + d.OrgID + "/Issuer.json"
	}
	return b
}

func (d *design) evidence(context string) *evidence {
	if d.Era == Era100 || d.CourseName == "" {
		return nil
	}
	return &evidence{ID: d.Base + "/Evidence.json", Type: evidenceType, Name: d.CourseName, Context: context}
}

func (d *design) verification() verification {
	if d.KeyID == "" {
		return verification{Type: hostedType}
	}
	return verification{Type: signedType, Creator: d.keyURL(d.KeyID)}
}

func (d *design) signatories() []signatory {
	out := make([]signatory, len(d.Signatories))
	context := d.Base + "/v1/extensions/SignatoryExtension/context.json"
	for i, s := range d.Signatories {
		out[i] = signatory{Identity: s.ID, Type: signatoryType, Designation: s.Designation, Image: s.Image, Context: context}
	}
	return out
}

// publicKeys are the issuer's, or the signing key where it names none; ids become addresses.
func (d *design) publicKeys() []string {
	ids := d.Issuer.PublicKey
	if len(ids) == 0 && d.KeyID != "" {
		ids = []string{d.KeyID}
	}
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id
		if !strings.HasPrefix(id, "http") {
			out[i] = d.keyURL(id)
		}
	}
	return out
}

func (d *design) keyURL(id string) string {
	if d.Era == Era100 {
		return d.Base + "/" + d.OrgID + "/" + id + "_publicKey.json"
	}
	return d.Base + "/keys/" + id + "_publicKey.json"
}

// signatureCreator lacks the folder keys/ in 3.9.0, unlike every other mention of the key.
func (d *design) signatureCreator() string {
	return strings.Replace(d.keyURL(d.KeyID), d.Base+"/keys/", d.Base+"/", 1)
}
