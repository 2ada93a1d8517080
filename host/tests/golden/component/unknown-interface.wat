(component (import "acme:db/query@1.0.0" (instance)))
