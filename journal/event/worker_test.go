package event

// workerSamples holds the facts about workers, all members set.
func workerSamples() []Facts {
	return []Facts{
		&WorkerEnrolled{
			Name: "ns-west", Roles: []string{"observe", "publish"},
			NKey: "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
			Age:  "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
		},
		&WorkerRemoved{Name: "ns-west"},
	}
}
