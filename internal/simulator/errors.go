package simulator

import (
	"net/http"
	"strings"
)

// errorBody is the error a service shows for a status it was told to fail with, where the fault brings no body: the
// service's own for 500, and what stands in front of it (gateway, proxy) for the rest.
func errorBody(service Service, status int) reply {
	switch status {
	case http.StatusTooManyRequests:
		return jsonReply(status, map[string]string{"message": "API rate limit exceeded"})
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return proxyPage(status)
	}
	switch service {
	case CertService:
		return certFault(status)
	case LearnerService:
		return learnerFault(status)
	case ContentService:
		return contentReply(status, "SERVER_ERROR", "SYSTEM_ERROR",
			"Something went wrong in server while processing the request", struct{}{})
	case Elasticsearch:
		return elasticError(status, "es_rejected_execution_exception", "rejected execution of coordinating operation")
	case Files:
	}
	return proxyPage(status)
}

func proxyPage(status int) reply {
	text := http.StatusText(status)
	page := strings.ReplaceAll("<html>\r\n<head><title>@</title></head>\r\n<body>\r\n<center><h1>@</h1></center>\r\n"+
		"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n", "@", text)
	return reply{status: status, contentType: "text/html", body: []byte(page)}
}

func certFault(status int) reply {
	e := certEnvelope{ResponseCode: "SERVER_ERROR", Result: messageResult{genericMessage}}
	switch {
	case status == http.StatusServiceUnavailable:
		code, text := "SERVICE_UNAVAILABLE", "SERVICE UNAVAILABLE"
		e.Params = &envelopeParams{Err: &code, Status: code, ErrMsg: &text}
		e.ResponseCode, e.Result = code, struct{}{}
	case status < 500:
		e.ResponseCode, e.Result = "CLIENT_ERROR", messageResult{invalidRequest}
	}
	return jsonReply(status, e)
}

func learnerFault(status int) reply {
	bad := refusal{status, internalError.code, internalError.text}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		bad.code, bad.text = "UNAUTHORIZED_USER", "You are not authorized."
	case http.StatusServiceUnavailable:
		bad.code, bad.text = "SERVICE_UNAVAILABLE", "SERVICE UNAVAILABLE"
	}
	code := "SERVER_ERROR"
	if status < 500 {
		code = "CLIENT_ERROR"
	}
	return jsonReply(status, sunbirdEnvelope{
		Ver: "private", Params: envelopeParams{Err: &bad.code, Status: bad.code, ErrMsg: &bad.text},
		ResponseCode: code, Result: struct{}{},
	})
}
