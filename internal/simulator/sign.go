package simulator

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
)

// keyBits is the smallest the standard library makes. The real service has 2048, which would cost a millisecond of
// CPU a signature and make this program, not the one under trial, the limit.
const keyBits = 1024

// saltLength is enc-service's.
const saltLength = 16

// keyring holds the signing keys of the enc-service behind cert-service: ids 2 to 9. Id 1 is its master key, which
// signs nothing.
type keyring struct {
	mu      sync.Mutex
	private map[string]*rsa.PrivateKey
	// public are keys known only to verify.
	public map[string]*rsa.PublicKey
	// made is told of each new key, so that certificates can be verified after a restart.
	made func(id string, der []byte)
}

func newKeyring() *keyring {
	return &keyring{private: map[string]*rsa.PrivateKey{}, public: map[string]*rsa.PublicKey{}, made: func(string, []byte) {}}
}

func knownKey(id string) bool { return len(id) == 1 && id >= "2" && id <= "9" }

// signer makes the key at its first use: most platforms never sign with most ids.
func (k *keyring) signer(id string) (*rsa.PrivateKey, error) {
	if !knownKey(id) {
		return nil, errUnknownKey
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.private[id]; key != nil {
		return key, nil
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	k.private[id] = key
	k.made(id, x509.MarshalPKCS1PrivateKey(key))
	return key, nil
}

func (k *keyring) restore(id string, der []byte) error {
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return err
	}
	k.private[id] = key
	return nil
}

func (k *keyring) verifier(id string) (*rsa.PublicKey, error) {
	k.mu.Lock()
	public := k.public[id]
	k.mu.Unlock()
	if public != nil {
		return public, nil
	}
	key, err := k.signer(id)
	if err != nil {
		return nil, err
	}
	return &key.PublicKey, nil
}

var (
	errUnknownKey = errors.New("unknown key")
	errGarbled    = errors.New("signature is garbled")
	errNull       = errors.New("null cannot be signed")
)

// sign gives the base64 signature of an entity (RSA-PSS, SHA-256, salt 16, over the canonical form).
func (k *keyring) sign(id string, entity any) (string, error) {
	key, err := k.signer(id)
	if err != nil {
		return "", err
	}
	digest, err := digestOf(entity)
	if err != nil {
		return "", err
	}
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: saltLength})
	return base64.StdEncoding.EncodeToString(signature), err
}

// verify says whether the signature is of the entity. A signature that no such key can have made is an error, as the
// service fails on it rather than saying false.
func (k *keyring) verify(id string, entity any, signature string) (bool, error) {
	key, err := k.verifier(id)
	if err != nil {
		return false, err
	}
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(raw) != key.Size() || !padded(key, raw) {
		return false, errGarbled
	}
	digest, err := digestOf(entity)
	if err != nil {
		return false, err
	}
	return rsa.VerifyPSS(key, crypto.SHA256, digest, raw, &rsa.PSSOptions{SaltLength: saltLength}) == nil, nil
}

// padded looks for the trailer of PSS, which is what tells a wrong claim from a garbled signature.
func padded(key *rsa.PublicKey, raw []byte) bool {
	message := new(big.Int).Exp(new(big.Int).SetBytes(raw), big.NewInt(int64(key.E)), key.N).Bytes()
	return len(message) > 0 && message[len(message)-1] == 0xbc
}

func digestOf(entity any) ([]byte, error) {
	var buf bytes.Buffer
	if err := writeCanonical(&buf, entity); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(buf.Bytes())
	return sum[:], nil
}

// asSent is the entity as it reaches enc-service: cert-service posts it as ISO-8859-1 labelled JSON, so whatever is
// beyond that becomes a question mark and its upper half arrives as broken UTF-8.
func asSent(v any) any {
	switch v := v.(type) {
	case string:
		return throughLatin1(v)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = asSent(item)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[throughLatin1(key)] = asSent(item)
		}
		return out
	}
	return v
}

func throughLatin1(s string) string {
	ascii := true
	for i := 0; i < len(s) && ascii; i++ {
		ascii = s[i] < 0x80
	}
	if ascii {
		return s
	}
	sent := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			r = '?'
		}
		sent = append(sent, byte(r))
	}
	return string([]rune(string(sent))) // decoding puts U+FFFD for each broken byte
}

// writeCanonical writes the form that is signed: members sorted, arrays sorted by the kind of their first element.
func writeCanonical(buf *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case map[string]any:
		return writeCanonicalObject(buf, v)
	case []any:
		return writeCanonicalArray(buf, v)
	case nil:
		return errNull
	default:
		buf.Write(jsValue(v))
	}
	return nil
}

func writeCanonicalObject(buf *bytes.Buffer, m map[string]any) error {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool { return jsKeyLess(keys[i], keys[j]) })
	buf.WriteByte('{')
	for i, key := range keys {
		if i > 0 {
			buf.WriteByte(',')
		}
		buf.Write(jsString(key))
		buf.WriteByte(':')
		if err := writeCanonical(buf, m[key]); err != nil {
			return err
		}
	}
	buf.WriteByte('}')
	return nil
}

func writeCanonicalArray(buf *bytes.Buffer, list []any) error {
	parts, err := canonicalParts(list)
	if err != nil {
		return err
	}
	buf.WriteByte('[')
	for i, part := range parts {
		if i > 0 {
			buf.WriteByte(',')
		}
		buf.WriteString(part)
	}
	buf.WriteByte(']')
	return nil
}

// canonicalParts sorts an array by its first element's kind: objects by the base64 of their canonical form, equal
// ones once; numbers by value; anything else by its text.
func canonicalParts(list []any) ([]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	switch list[0].(type) {
	case map[string]any, []any, nil:
		return objectParts(list)
	case json.Number:
		sort.SliceStable(list, func(i, j int) bool { return numberOf(list[i]) < numberOf(list[j]) })
	default:
		sort.SliceStable(list, func(i, j int) bool { return utf16Less(jsText(list[i]), jsText(list[j])) })
	}
	parts := make([]string, len(list))
	for i, item := range list {
		parts[i] = string(jsValue(item))
	}
	return parts, nil
}

func objectParts(list []any) ([]string, error) {
	byKey := map[string]string{}
	for _, item := range list {
		if inner, ok := item.([]any); ok {
			item = indexed(inner)
		}
		var buf bytes.Buffer
		if err := writeCanonical(&buf, item); err != nil {
			return nil, err
		}
		byKey[base64.StdEncoding.EncodeToString(buf.Bytes())] = buf.String()
	}
	keys := make([]string, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	parts := make([]string, len(keys))
	for i, key := range keys {
		parts[i] = byKey[key]
	}
	return parts, nil
}

// indexed turns an inner array into the object the service makes of it.
func indexed(list []any) map[string]any {
	out := make(map[string]any, len(list))
	for i, item := range list {
		out[strconv.Itoa(i)] = item
	}
	return out
}

func numberOf(v any) float64 {
	n, _ := v.(json.Number)
	f, _ := n.Float64()
	return f
}

func jsNumber(n json.Number) string {
	f, err := n.Float64()
	if err != nil {
		return n.String()
	}
	return string(encode(f))
}

func jsValue(v any) []byte {
	switch v := v.(type) {
	case json.Number:
		return []byte(jsNumber(v))
	case string:
		return jsString(v)
	}
	return encode(v)
}

// jsString quotes as JSON.stringify does, which leaves the line separators raw.
func jsString(s string) []byte {
	quoted := encode(s)
	quoted = bytes.ReplaceAll(quoted, []byte(`\u2028`), []byte("\u2028"))
	return bytes.ReplaceAll(quoted, []byte(`\u2029`), []byte("\u2029"))
}

func jsText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(jsValue(v))
}

// jsKeyLess orders members as a JavaScript object prints them: whole numbers first, then by UTF-16.
func jsKeyLess(a, b string) bool {
	x, aIndex := arrayIndex(a)
	y, bIndex := arrayIndex(b)
	switch {
	case aIndex && bIndex:
		return x < y
	case aIndex != bIndex:
		return aIndex
	}
	return utf16Less(a, b)
}

func arrayIndex(s string) (uint64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return n, err == nil && (s == "0" || s[0] != '0')
}

// utf16Less orders by UTF-16 units. That is the order of the bytes of UTF-8, unless a letter from U+E000 on is there.
func utf16Less(a, b string) bool {
	high := func(r rune) bool { return r >= 0xe000 }
	if strings.IndexFunc(a, high) < 0 && strings.IndexFunc(b, high) < 0 {
		return a < b
	}
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b))) < 0
}
