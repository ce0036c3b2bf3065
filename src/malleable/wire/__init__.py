"""The API's requests and answers, one file per noun; shared by server and client, known to neither's insides."""
