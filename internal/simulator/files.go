package simulator

import (
	"archive/zip"
	"bytes"
	"net/http"
	"strings"
	"sync"
)

// The templates the files server has, by path. TemplateSlow never answers.
const (
	TemplatePath        = "/templates/certificate.zip"
	TemplateSecondPath  = "/templates/merit.zip"
	TemplateBrokenPath  = "/templates/broken.zip"
	TemplateNoIndexPath = "/templates/noindex.zip"
	TemplateBadVarsPath = "/templates/badvars.zip"
	TemplateSlowPath    = "/templates/slow.zip"
	TemplateMissingPath = "/templates/missing.zip"     // really missing: 404
	TemplateSVGPath     = "/templates/certificate.svg" // of the later era: no zip
)

// filesRoute finds a file: a template, or a certificate by any path that ends in its name.
func (p *Platform) filesRoute(r *http.Request) route {
	path := r.URL.Path
	switch {
	case path == TemplateSlowPath:
		return route{"template", func(x *exchange) func() reply { return p.neverAnswer(x) }}
	case strings.HasPrefix(path, "/templates/"):
		return route{"template", func(*exchange) func() reply { return answer(templateFile(path)) }}
	case path == "/sign.png":
		return route{"template", fixed(reply{status: 200, contentType: "image/png", body: signatureImage()})}
	}
	return route{"download", func(x *exchange) func() reply { return p.certificateFile(x, path) }}
}

func (p *Platform) neverAnswer(x *exchange) func() reply {
	return func() reply {
		select {
		case <-x.r.Context().Done():
		case <-p.stop:
		}
		return reply{cut: true}
	}
}

func templateFile(path string) reply {
	if path == TemplateSVGPath {
		return reply{status: 200, contentType: "image/svg+xml", body: []byte(svgTemplate)}
	}
	body, known := templateZips()[path]
	if !known {
		return notFound(path)
	}
	return reply{status: 200, contentType: "application/zip", body: body}
}

func notFound(path string) reply {
	return reply{status: 404, contentType: "text/plain; charset=utf-8", body: []byte("no file " + path + "\n")}
}

// templateZips builds the archives once.
var templateZips = sync.OnceValue(func() map[string][]byte {
	return map[string][]byte{
		TemplatePath:        zipOf("index.html", templatePage),
		TemplateSecondPath:  zipOf("index.html", strings.ReplaceAll(templatePage, "Certificate of completion", "Certificate of merit")),
		TemplateBrokenPath:  []byte("this is not a zip archive\n"),
		TemplateNoIndexPath: zipOf("page.html", templatePage),
		TemplateBadVarsPath: zipOf("index.html", templatePage+"<p>$notAVariable</p>\n"),
	}
})

const templatePage = `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Certificate of completion</title></head>
<body>
<h1>Certificate of completion</h1>
<p>This is to certify that <b>$recipientName</b> has completed <b>$courseName</b>.</p>
<p>Issued on $issuedDate</p>
<img src="$signatory0Image" alt=""> $signatory0Designation
<img src="$qrCodeImage" alt="">
</body>
</html>
`

const svgTemplate = `<svg xmlns="http://www.w3.org/2000/svg" width="600" height="400"><text x="300" y="120">$recipientName</text></svg>`

func zipOf(name, content string) []byte {
	var buf bytes.Buffer
	archive := zip.NewWriter(&buf)
	if file, err := archive.Create(name); err == nil {
		_, _ = file.Write([]byte(content)) // into memory: cannot fail
	}
	_ = archive.Close()
	return buf.Bytes()
}

// certificateFile serves a certificate's PDF or assertion; the PDF is drawn now, because most are never looked at.
func (p *Platform) certificateFile(x *exchange, path string) func() reply {
	c := p.certs.byPath(path)
	if c == nil || x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return answer(notFound(path))
	}
	x.certificateID = c.ID
	if c.RecipientID != nil {
		x.userID = *c.RecipientID
	}
	return func() reply {
		if strings.HasSuffix(path, ".json") {
			return jsonReply(200, c.assertion())
		}
		body, err := drawCertificate(c)
		if err != nil {
			return reply{status: 500, contentType: "text/plain; charset=utf-8", body: []byte(err.Error())}
		}
		return reply{status: 200, contentType: "application/pdf", body: body}
	}
}
