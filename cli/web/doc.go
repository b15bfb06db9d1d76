// Package web is the daemon's page: what a browser shows of the zones, and the
// forms by which a person decides.
//
// Pages are made on the server from embedded templates and work without
// JavaScript; one small module keeps them up to date. Whatever a page shows or
// does goes through the API's own handler as the person who is logged in, so
// that the page can do exactly what the API allows. Nothing comes from
// elsewhere, and a strict content security policy holds a page to that.
package web
