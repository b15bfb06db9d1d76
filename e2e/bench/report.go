package main

import (
	"fmt"
	"strings"
	"time"
)

// report writes both tables. Ratios are of this program to each peer: below 1
// this program takes less.
func report(c config, signed, served []series) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Zone: %s, %d names, %s; algorithm 13, KSK and ZSK; signatures verified: %s. %d runs in turn, medians. %s, %s.\n",
		c.zone.Kind, c.zone.Names, c.denial, c.verify, c.runs, machine(), time.Now().UTC().Format(time.DateOnly))
	if len(signed) > 0 {
		b.WriteString("\n| sign a file | wall s (all) | median | CPU s | peak RSS MiB | RRSIGs | wall, ours to it | CPU, ours to it |\n|---|---|---|---|---|---|---|---|\n")
		for i, s := range signed {
			row(&b, s, signed[0], i > 0 && strings.Contains(signed[0].name, "sluice"))
		}
	}
	if len(served) > 0 {
		b.WriteString("\n| part of a run | wall s (all) | median | CPU s | peak RSS MiB | records | records/s |\n|---|---|---|---|---|---|---|\n")
		for _, s := range served {
			walls, wall, cpu, rss := figures(s)
			records := median(s.samples, func(s sample) int { return s.records })
			fmt.Fprintf(&b, "| %s | %s | %.2f | %s | %s | %s | %s |\n", s.name, walls, wall.Seconds(), seconds(cpu), mebibytes(rss),
				count(records), count(int(float64(records)/wall.Seconds())))
		}
	}
	return b.String()
}

func row(b *strings.Builder, s, ours series, compare bool) {
	walls, wall, cpu, rss := figures(s)
	wallRatio, cpuRatio := "", ""
	if compare {
		_, ourWall, ourCPU, _ := figures(ours)
		wallRatio = fmt.Sprintf("%.2f", ourWall.Seconds()/wall.Seconds())
		cpuRatio = fmt.Sprintf("%.2f", ourCPU.Seconds()/cpu.Seconds())
	}
	fmt.Fprintf(b, "| %s | %s | %.2f | %s | %s | %s | %s | %s |\n", s.name, walls, wall.Seconds(), seconds(cpu), mebibytes(rss),
		count(median(s.samples, func(s sample) int { return s.signatures })), wallRatio, cpuRatio)
}

func figures(s series) (walls string, wall, cpu time.Duration, rss int64) {
	var all []string
	for _, one := range s.samples {
		all = append(all, fmt.Sprintf("%.2f", one.wall.Seconds()))
	}
	return strings.Join(all, " "),
		median(s.samples, func(s sample) time.Duration { return s.wall }),
		median(s.samples, func(s sample) time.Duration { return s.cpu }),
		median(s.samples, func(s sample) int64 { return s.rss })
}

func seconds(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", d.Seconds())
}

func mebibytes(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n >> 20)
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
