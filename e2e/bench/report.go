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

// reportLive writes what changes cost: in one zone beside the others, then one
// change in zones of several sizes.
func reportLive(big, flat []live) string {
	var b strings.Builder
	if len(big) > 0 {
		b.WriteString("\n| change by IXFR and NOTIFY | changes | p50 ms | p99 ms | worst ms | CPU ms a change | p50, ours to it |\n|---|---|---|---|---|---|---|\n")
		for i := range big[0].groups {
			for _, l := range big {
				g, ratio := l.groups[i], ""
				if l.peer != big[0].peer && big[0].peer == "sluice" {
					ratio = fmt.Sprintf("%.2f", big[0].groups[i].quantile(50).Seconds()/g.quantile(50).Seconds())
				}
				fmt.Fprintf(&b, "| %s, %s | %d | %s | %.1f | %s |\n", rrsets(g.rrsets), l.peer, len(g.took), g.quantiles(),
					milliseconds(g.cpu)/float64(len(g.took)), ratio)
			}
		}
		b.WriteString("\n| server | transfer in to first signed zone s | CPU s | RSS MiB after the changes | peak RSS MiB |\n|---|---|---|---|---|\n")
		for _, l := range big {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", l.peer, l.firsts(), seconds(l.cpu), mebibytes(l.steady), mebibytes(l.peak))
		}
	}
	if len(flat) > 0 {
		b.WriteString("\n| one RRset changed in a zone of | changes | p50 ms | p99 ms | worst ms | CPU ms a change | RSS MiB after | peak RSS MiB |\n|---|---|---|---|---|---|---|---|\n")
		for _, l := range flat {
			g := l.groups[0]
			fmt.Fprintf(&b, "| %d names, %s | %d | %s | %.1f | %s | %s |\n", l.names, l.peer, len(g.took), g.quantiles(),
				milliseconds(g.cpu)/float64(len(g.took)), mebibytes(l.steady), mebibytes(l.peak))
		}
	}
	return b.String()
}

func (g liveGroup) quantiles() string {
	return fmt.Sprintf("%.1f | %.1f | %.1f", milliseconds(g.quantile(50)), milliseconds(g.quantile(99)), milliseconds(g.quantile(100)))
}

func (l live) firsts() string {
	var all []string
	for _, took := range l.first {
		all = append(all, fmt.Sprintf("%.2f", took.Seconds()))
	}
	return strings.Join(all, " ")
}

func rrsets(n int) string {
	if n == 1 {
		return "1 RRset"
	}
	return fmt.Sprintf("%d RRsets", n)
}
