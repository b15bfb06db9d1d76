// Package natscluster runs NATS servers beside a test, one or a cluster of
// them, and makes them fail: killed, stopped, restarted, cut off from each
// other. The servers are built from the module that the daemon embeds.
package natscluster
