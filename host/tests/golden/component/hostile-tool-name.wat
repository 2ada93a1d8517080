;; call: [31mred
(component
    (core module $m (func (export "f"))) (core instance $i (instantiate $m))
    (func (export "send") (canon lift (core func $i "f"))))
