package metrics

import _ "embed"

//go:embed rules.yml
var rules string

//go:embed dashboard.json
var dashboard string

// Rules are recording and alerting rules for Prometheus, as a file of its
// configuration.
func Rules() string { return rules }

// Dashboard is a dashboard for Grafana, as it is imported there.
func Dashboard() string { return dashboard }
