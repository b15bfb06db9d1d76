// Package api is the daemon's HTTP interface under /api/v1: its handlers, its
// wire types, and the client that the commands use.
//
// Routes is the one table of what there is: path, role, parameters, documents. The
// mux and the OpenAPI document are made of it. Each request passes Route.admit
// before its handler: no route answers a caller without its role.
//
// Answers are JSON; errors are problem documents (RFC 9457). Long answers are
// streams of frames, one JSON object a line (application/x-ndjson), see Frame;
// the live tail is a stream of server-sent events whose ids are journal
// sequences. Zone files are text/dns (RFC 4027).
package api
