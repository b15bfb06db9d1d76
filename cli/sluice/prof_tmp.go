//go:build prof

package main

import (
	"os"
	"runtime/pprof"
	"time"
)

func init() {
	f, _ := os.Create("/tmp/cpu.prof")
	pprof.StartCPUProfile(f)
	go func() { time.Sleep(75 * time.Second); pprof.StopCPUProfile(); f.Close() }()
}
