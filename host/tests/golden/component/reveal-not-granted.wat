;; granted: tokens, http
(component (import "clawcoil:skill/reveal@0.1.0" (instance)))
